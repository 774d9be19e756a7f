//! Where the blocks of a rollout go, in order.

use super::{Output, Player, Scene, Summary};
use crate::error::{Error, Result};
use crate::logs::{Columns, Encoder, FileWriter, Log, Metadata, Opening, RowGroup, Shape};

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
    /// Blocks that are in it.
    pub blocks: u64,
}

impl Sink {
    /// `asked` is what another run must ask to go on with a file; `tick` is asked now and then
    /// while the blocks of an earlier one are checked.
    pub fn new(
        output: &Output,
        shape: Shape,
        constant_actions: bool,
        asked: &Metadata,
        tick: &dyn Fn() -> Result<()>,
    ) -> Result<Self> {
        let mut summary = Summary::default();
        let target = match output {
            Output::Nowhere => Target::Nowhere,
            Output::Memory => Target::Memory(Box::default()),
            Output::File { path, overwrite, resume } => {
                let (overwrite, asked) = (*overwrite, Some(asked));
                let opening = Opening { path, overwrite, shape, constant_actions, asked };
                let file = if *resume {
                    let (file, blocks) = FileWriter::resume::<Summary>(opening, tick)?;
                    blocks.iter().for_each(|counts| summary.merge(counts));
                    file
                } else {
                    FileWriter::create(opening)?
                };
                Target::File(Box::new(file))
            }
        };
        let blocks = match &target {
            Target::Nowhere | Target::Memory(_) => 0,
            Target::File(file) => file.groups() as u64,
        };
        Ok(Self { target, shape, summary, blocks })
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
            (Target::File(file), Some(group)) => {
                let counts = serde_json::to_value(&player.summary).expect("plain data");
                file.append(group, counts)?;
            }
            (Target::File(_), None) => unreachable!("blocks for a file are encoded"),
        }
        self.summary.merge(&player.summary);
        self.blocks += 1;
        Ok(())
    }

    /// Completes the log. `tick` is asked while the disk is waited for.
    pub fn finish(
        self,
        metadata: Metadata,
        tick: &dyn Fn() -> Result<()>,
    ) -> Result<(Option<Log>, Summary)> {
        let log = match self.target {
            Target::Nowhere => None,
            Target::Memory(mut columns) => {
                columns.shrink();
                Some(columns.freeze(self.shape, metadata))
            }
            Target::File(file) => {
                file.finish(metadata, tick).map_err(Error::unfinished)?;
                None
            }
        };
        Ok((log, self.summary))
    }

    /// What is in the file so far stays beside its name; what is in memory goes. Returns the error
    /// that led here, as the caller is to hear it.
    pub fn abandon(self, metadata: Metadata, error: Error) -> Error {
        match self.target {
            Target::Nowhere | Target::Memory(_) => error,
            Target::File(file) => {
                file.abandon(metadata);
                error.unfinished()
            }
        }
    }
}
