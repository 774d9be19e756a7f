//! The one error type of the crate. Every message says what was expected and what came.

use std::path::{Path, PathBuf};

/// What can go wrong, sorted by what a caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument is outside what the function takes.
    #[error("{what}: expected {expected}, got {got}")]
    Argument {
        /// The argument's name.
        what: String,
        /// What would have been accepted.
        expected: String,
        /// What came.
        got: String,
    },
    /// An action that no customer can be shown.
    #[error("action of environment {lane}: expected {expected}, got {got}")]
    Action {
        /// The environment, 0-based.
        lane: usize,
        /// What would have been accepted.
        expected: String,
        /// What came.
        got: String,
    },
    /// A world whose customers make no fair test: too easy, too hard, or without structure.
    #[error("world of seed {seed}: {what}: expected {expected}, got {got}")]
    World {
        /// The world's seed.
        seed: u64,
        /// The figure that is off.
        what: &'static str,
        /// Its bounds.
        expected: String,
        /// Its value.
        got: String,
    },
    /// A call at the wrong time, such as a step before the first reset.
    #[error("{0}")]
    State(String),
    /// A file or state that is damaged, altered, or not of the expected format.
    #[error("{origin}: {reason}")]
    Format {
        /// The file's name, or what else was read.
        origin: String,
        /// What was expected and what came.
        reason: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The operating system refused to go on writing a rollout's file.
    #[error("{path}: {source}; {KEPT}")]
    Unfinished {
        /// The file concerned.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The caller asked for a stop (Ctrl-C).
    #[error("interrupted")]
    Interrupted,
    /// A customer model that was called back failed.
    #[error("the customer model failed: {reason}")]
    Model {
        /// What went wrong.
        reason: String,
        /// Its own error, if it gave one.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A policy that was called back failed; its own error is kept by the caller.
    #[error("the policy failed: {0}")]
    Policy(String),
}

/// What [`Error::Unfinished`] adds to what the system said.
pub const KEPT: &str = "what was played is kept, and resume=True (--resume) goes on with it";

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Argument`] from anything printable.
    pub fn argument(
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Self::Argument { what: what.into(), expected: expected.into(), got: got.to_string() }
    }

    /// An [`Error::Format`].
    pub fn format(origin: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Format { origin: origin.into(), reason: reason.into() }
    }

    /// What a refusal of the system means if what was written stays.
    pub fn unfinished(self) -> Self {
        match self {
            Self::Io { path, source } => Self::Unfinished { path, source },
            other => other,
        }
    }

    /// Attaches the path to an operating-system error.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
