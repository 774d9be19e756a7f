//! A rollout that is resumed although it was finished.
//!
//! Who resumes whatever was stopped, a job that is queued again for example, cannot know whether
//! there is anything left to do. If the file is there, whole, and what was asked, it is counted and
//! that is all.

use std::path::Path;

use super::{Output, Run, Scene, Summary, Target, Watch};
use crate::error::{Error, Result};
use crate::logs::{self, Columns, Journal, Log};
use crate::tensor_file::partial;

impl<S: Scene> Run<'_, S> {
    /// The counts of the file, if that is complete and nothing else stands beside it.
    pub(super) fn finished(&self, output: &Output, watch: &Watch<'_>) -> Result<Option<Summary>> {
        let Output::File { path, overwrite, resume: true } = output else { return Ok(None) };
        if !path.is_file() || partial(path).exists() {
            return Ok(None);
        }
        match self.counted(path, watch) {
            Ok(summary) => {
                // A kill between the last two steps leaves the journal.
                if let (true, Ok(journal)) = (logs::journal(path).exists(), Journal::claim(path)) {
                    journal.remove();
                }
                Ok(Some(summary))
            }
            Err(Error::Argument { .. } | Error::Format { .. }) if *overwrite => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn counted(&self, path: &Path, watch: &Watch<'_>) -> Result<Summary> {
        let mut counts = Counts::default();
        let (_, metadata) = logs::each_piece(path, watch.interrupt, |piece| {
            counts.add(piece);
            (watch.progress)(counts.summary.pages, counts.summary.sessions);
            Ok(())
        })?;
        counts.end();
        let Counts { summary, last, .. } = counts;
        logs::same(&metadata, &self.metadata(&summary), path)?;
        let pages = summary.pages;
        match self.target {
            Target::Sessions(wanted) if summary.sessions != wanted => {
                Err(unlike(path, "sessions", summary.sessions, wanted))
            }
            Target::Pages(wanted) if pages < wanted || pages - last >= wanted => {
                Err(unlike(path, "pages", pages, wanted))
            }
            _ => Ok(summary),
        }
    }
}

fn unlike(path: &Path, what: &str, has: u64, wanted: u64) -> Error {
    let expected = format!("{has} as in {}", path.display());
    Error::argument(format!("{what} of a resumed rollout"), expected, wanted)
}

/// Counts of rows that come in pieces, which may end within a session.
#[derive(Default)]
struct Counts {
    summary: Summary,
    /// The session that may go on in the next piece.
    open: Columns,
    /// Pages of the last session.
    last: u64,
}

impl Counts {
    fn add(&mut self, piece: &Log) {
        self.open.append_log(piece);
        let Some(last) = self.open.session.last() else { return };
        let whole = self.open.session.partition_point(|session| session < last);
        self.count(whole);
        self.open.drop_first(whole, piece.shape);
    }

    fn end(&mut self) {
        let rows = self.open.len();
        self.last = rows as u64;
        self.count(rows);
    }

    fn count(&mut self, rows: usize) {
        let sessions = self.open.session[..rows].chunk_by(|one, next| one == next);
        let lengths: Vec<_> = sessions.map(|session| session.len() as u32).collect();
        self.summary.merge(&Summary::of(&self.open, &lengths));
    }
}
