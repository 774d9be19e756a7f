//! Where the blocks of a rollout go, in order.

use super::{Output, Player, Scene, Summary};
use crate::error::Result;
use crate::logs::{Columns, Encoder, FileWriter, Log, Metadata, RowGroup, Shape};

/// A log in memory or in a file.
#[derive(Debug)]
enum Target {
    Nowhere,
    Memory(Box<Columns>),
    File(Box<FileWriter>),
}

/// The log so far, and its counts.
#[derive(Debug)]
pub struct Sink {
    target: Target,
    shape: Shape,
    pub summary: Summary,
}

impl Sink {
    pub fn new(output: &Output, shape: Shape, constant_actions: bool) -> Result<Self> {
        let target = match output {
            Output::Nowhere => Target::Nowhere,
            Output::Memory => Target::Memory(Box::default()),
            Output::File { path, overwrite } => {
                let file = FileWriter::create(path, *overwrite, shape, constant_actions)?;
                Target::File(Box::new(file))
            }
        };
        Ok(Self { target, shape, summary: Summary::default() })
    }

    /// What encodes blocks, if this is a file.
    pub fn encoder(&self) -> Option<Encoder> {
        match &self.target {
            Target::Nowhere | Target::Memory(_) => None,
            Target::File(file) => Some(file.encoder()),
        }
    }

    /// Appends a block: the player's rows, or these encoded.
    pub fn take<S: Scene>(
        &mut self,
        player: &Player<'_, S>,
        encoded: Option<RowGroup>,
    ) -> Result<()> {
        match (&mut self.target, encoded) {
            (Target::Nowhere, _) => {}
            (Target::Memory(columns), _) => columns.append(&player.columns),
            (Target::File(file), Some(group)) => file.append(group)?,
            (Target::File(_), None) => unreachable!("blocks for a file are encoded"),
        }
        self.summary.merge(&player.summary);
        Ok(())
    }

    pub fn finish(self, metadata: Metadata) -> Result<(Option<Log>, Summary)> {
        let log = match self.target {
            Target::Nowhere => None,
            Target::Memory(mut columns) => {
                columns.shrink();
                Some(columns.freeze(self.shape, metadata))
            }
            Target::File(file) => {
                file.finish(metadata)?;
                None
            }
        };
        Ok((log, self.summary))
    }

    /// What is in the file so far stays beside its name; what is in memory goes.
    pub fn abandon(self, metadata: Metadata) {
        if let Target::File(file) = self.target {
            file.abandon(metadata);
        }
    }
}
