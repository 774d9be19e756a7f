//! Building a catalogue, in a stream: the attributes may be larger than memory.
//!
//! # How a build goes
//! 1. Pieces of rows come in ([`Builder::push`]). Attributes are checked, sampled, and put into a
//!    scratch file (unless they are in memory already); ids and columns are kept in memory, some
//!    12 to 30 bytes an item.
//! 2. The sample gives the [`Plan`]. Every row is assigned to its cluster; counting the clusters
//!    gives the storage order: by (cluster, row).
//! 3. Attributes are read once more, in row order, and go to their places through one buffer a
//!    cluster, so that the file is written in runs.
//! 4. What was written is read from its start to its end, for its checksum and to encode it.
//! 5. Everything else is written; last the header; then the file gets its name.
//!
//! The bytes depend on the rows alone, not on how they came in pieces, nor on threads.

mod output;
mod passes;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use arrow_array::{Array, Int64Array, StringArray};
use bytemuck::cast_slice;
use memmap2::MmapMut;

use super::Catalog;
use super::columns::{self, Categories, Value};
use super::format::{Column, Header, IdKind, Kind, MOST_DIMENSIONS, MOST_ROWS, check_names};
use super::target::{Beside, Scratch, Target};
use crate::error::{Error, Result};
use crate::parallel;
use crate::search::Plan;
use output::Output;
use passes::Geometry;
use rows::{OwnedIds, Rows, Sample};

/// What a build is told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The file; `None`: memory.
    pub path: Option<PathBuf>,
    /// Whether a file of that name is replaced.
    pub overwrite: bool,
    /// Threads; `None`: one a core.
    pub threads: Option<usize>,
}

/// What ids or categories are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// Whole numbers.
    Integers,
    /// Texts.
    Texts,
}

/// What a catalogue's rows look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Attributes of an item.
    pub dimensions: usize,
    /// What items are called; `None`: their row numbers.
    pub ids: Option<Kinds>,
    /// Names of the columns of numbers.
    pub numbers: Vec<String>,
    /// Names of the columns of categories.
    pub categories: Vec<(String, Kinds)>,
}

/// Ids of some rows.
#[derive(Clone, Debug)]
pub enum IdCells {
    /// Numbers.
    Integers(Vec<u64>),
    /// Texts.
    Texts(StringArray),
}

/// Categories of some rows; nulls are rows without one.
#[derive(Clone, Debug)]
pub enum Cells {
    /// Whole numbers.
    Integers(Int64Array),
    /// Texts.
    Texts(StringArray),
}

/// Some rows, in the order of the shape's columns.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// Row-major.
    pub attributes: &'a [f32],
    /// Unless ids are row numbers.
    pub ids: Option<IdCells>,
    /// NaN for none.
    pub numbers: Vec<Vec<f32>>,
    /// One a column.
    pub categories: Vec<Cells>,
}

/// What the caller is told, and asked, many times a second.
pub struct Watch<'a> {
    /// An error ends the build.
    pub interrupt: &'a dyn Fn() -> Result<()>,
    /// What is going on, how much of it is done, and of how much (0: nobody knows).
    pub progress: &'a dyn Fn(&'static str, u64, u64),
}

impl Watch<'_> {
    /// Of nobody who cares.
    pub const NONE: Watch<'static> = Watch { interrupt: &|| Ok(()), progress: &|_, _, _| {} };

    fn tell(&self, stage: &'static str, done: u64, total: u64) -> Result<()> {
        (self.progress)(stage, done, total);
        (self.interrupt)()
    }
}

/// A catalogue that grows.
pub struct Builder {
    shape: Shape,
    threads: usize,
    target: Target,
    scratch: Option<Scratch>,
    rows: u64,
    sample: Sample,
    ids: OwnedIds,
    numbers: Vec<Vec<f32>>,
    categories: Vec<Categories>,
}

impl Builder {
    /// Starts a build. With `scratch`, pieces are kept in a file until [`Builder::finish`];
    /// without it, [`Builder::finish_with`] is given all attributes again.
    pub fn new(options: &Options, shape: Shape, scratch: bool) -> Result<Self> {
        let dimensions = shape.dimensions;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            let expected = format!("1 to {MOST_DIMENSIONS} an item");
            return Err(Error::argument("attributes", expected, dimensions));
        }
        let numbers = shape.numbers.iter().map(|name| &**name);
        check_names(numbers.chain(shape.categories.iter().map(|(name, _)| &**name)))
            .map_err(|reason| Error::argument("columns", "names that can be told apart", reason))?;
        let threads = parallel::resolve(options.threads)?;
        let target = match &options.path {
            Some(path) => Target::File(Beside::create(path, options.overwrite)?),
            None => {
                let none = MmapMut::map_anon(1).map_err(Error::io("memory".as_ref()))?;
                Target::Memory(Mutex::new(none))
            }
        };
        let scratch = scratch.then(|| new_scratch(options)).transpose()?;
        let ids = match shape.ids {
            None => OwnedIds::Rows,
            Some(Kinds::Integers) => OwnedIds::Integers(Vec::new()),
            Some(Kinds::Texts) => OwnedIds::Texts { offsets: vec![0], bytes: Vec::new() },
        };
        let category = |(_, kind): &(_, Kinds)| Categories::new(*kind == Kinds::Texts);
        Ok(Self {
            threads,
            target,
            scratch,
            rows: 0,
            sample: Sample::new(dimensions),
            ids,
            numbers: vec![Vec::new(); shape.numbers.len()],
            categories: shape.categories.iter().map(category).collect(),
            shape,
        })
    }

    /// Attributes of an item.
    pub fn dimensions(&self) -> usize {
        self.shape.dimensions
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Takes the next rows.
    pub fn push(&mut self, piece: Piece<'_>) -> Result<()> {
        let dimensions = self.shape.dimensions;
        let rows = piece.attributes.len() / dimensions;
        if self.rows + rows as u64 > MOST_ROWS {
            let expected = format!("at most {MOST_ROWS} items");
            return Err(Error::argument("attributes", expected, "more"));
        }
        self.check_attributes(piece.attributes)?;
        self.push_ids(piece.ids, rows)?;
        let numbers = self.numbers.iter_mut().zip(piece.numbers).zip(&self.shape.numbers);
        for ((all, numbers), name) in numbers {
            check_length(name, rows, numbers.len())?;
            all.extend(numbers);
        }
        let categories =
            self.categories.iter_mut().zip(&piece.categories).zip(&self.shape.categories);
        for ((all, cells), (name, _)) in categories {
            match cells {
                Cells::Integers(cells) => {
                    check_length(name, rows, cells.len())?;
                    cells.iter().for_each(|cell| all.push(cell.map(Value::Integer)));
                }
                Cells::Texts(cells) => {
                    check_length(name, rows, cells.len())?;
                    cells.iter().for_each(|cell| all.push(cell.map(Value::Text)));
                }
            }
        }
        if let Some(scratch) = &self.scratch {
            scratch.write(4 * self.rows * dimensions as u64, cast_slice(piece.attributes))?;
        }
        for (index, row) in piece.attributes.chunks_exact(dimensions).enumerate() {
            self.sample.push(self.rows + index as u64, row);
        }
        self.rows += rows as u64;
        Ok(())
    }

    fn check_attributes(&self, attributes: &[f32]) -> Result<()> {
        let dimensions = self.shape.dimensions;
        check_length(
            "attributes",
            attributes.len().next_multiple_of(dimensions),
            attributes.len(),
        )?;
        for (index, values) in attributes.chunks(4096).enumerate() {
            // Without a branch inside, this becomes vector code.
            if values.iter().fold(true, |fine, value| fine & value.is_finite()) {
                continue;
            }
            let inside = values.iter().position(|value| !value.is_finite()).expect("seen above");
            let at = index * 4096 + inside;
            let (row, column) = (self.rows + (at / dimensions) as u64, at % dimensions);
            let got = format!("{} in row {row}, column {column}", attributes[at]);
            return Err(Error::argument("attributes", "finite numbers", got));
        }
        Ok(())
    }

    fn push_ids(&mut self, cells: Option<IdCells>, rows: usize) -> Result<()> {
        match (&mut self.ids, cells) {
            (OwnedIds::Rows, None) => Ok(()),
            (OwnedIds::Integers(all), Some(IdCells::Integers(ids))) => {
                check_length("ids", rows, ids.len())?;
                if let Some(row) = ids.iter().position(|id| *id == u64::MAX) {
                    let got = format!("{} in row {}", u64::MAX, self.rows + row as u64);
                    return Err(Error::argument("ids", "numbers below 2^64 - 1", got));
                }
                all.extend(ids);
                Ok(())
            }
            (OwnedIds::Texts { offsets, bytes }, Some(IdCells::Texts(ids))) => {
                check_length("ids", rows, ids.len())?;
                for (row, id) in ids.iter().enumerate() {
                    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| {
                        let got = format!("none in row {}", self.rows + row as u64);
                        Error::argument("ids", "a text that is not empty for each row", got)
                    })?;
                    bytes.extend(id.as_bytes());
                    offsets.push(bytes.len() as u64);
                }
                Ok(())
            }
            (expected, got) => {
                let [expected, got] = [
                    match expected {
                        OwnedIds::Rows => "none",
                        OwnedIds::Integers(_) => "whole numbers",
                        OwnedIds::Texts { .. } => "texts",
                    },
                    match got {
                        None => "none",
                        Some(IdCells::Integers(_)) => "whole numbers",
                        Some(IdCells::Texts(_)) => "texts",
                    },
                ];
                Err(Error::argument("ids", expected, got))
            }
        }
    }

    /// Completes a build whose attributes are in its scratch file.
    pub fn finish(mut self, watch: &Watch<'_>) -> Result<Catalog> {
        let scratch = self.scratch.take().expect("a build with a scratch file");
        self.complete(Rows::Scratch(scratch), watch)
    }

    /// Completes a build; `attributes` are all that were pushed.
    pub fn finish_with(self, attributes: &[f32], watch: &Watch<'_>) -> Result<Catalog> {
        assert_eq!(attributes.len() as u64, self.rows * self.shape.dimensions as u64);
        self.complete(Rows::Memory(attributes), watch)
    }

    fn complete(mut self, rows: Rows<'_>, watch: &Watch<'_>) -> Result<Catalog> {
        let (count, dimensions) = (self.rows, self.shape.dimensions);
        if count == 0 {
            return Err(Error::argument("attributes", "at least one item", "none"));
        }
        watch.tell("learning clusters", 0, 0)?;
        let sample = std::mem::replace(&mut self.sample, Sample::new(dimensions));
        let plan = Plan::learn(&sample.rows, dimensions, count)?;
        drop(sample);
        let geometry = Geometry { rows: count as usize, dimensions, threads: self.threads };
        let clusters = geometry.assign(&plan, &rows, watch)?;

        let numbers = self.shape.numbers.iter().zip(&self.numbers);
        let numbers: Vec<Column> =
            numbers.map(|(name, all)| columns::finish_numbers(name, all)).collect::<Result<_>>()?;
        let categories = std::mem::take(&mut self.categories).into_iter();
        let categories: Vec<_> = categories
            .zip(&self.shape.categories)
            .map(|(column, (name, _))| column.finish(name))
            .collect();
        let header = Header {
            rows: count,
            dimensions: dimensions as u32,
            ids: self.id_kind(),
            columns: numbers
                .iter()
                .chain(categories.iter().map(|column| &column.column))
                .cloned()
                .collect(),
            made_by: format!("virtualtb_fast {}", env!("CARGO_PKG_VERSION")),
            sections: Vec::new(),
        };
        let mut file = Output::new(header, &plan, &self.ids, &categories, &mut self.target)?;
        geometry.distribute(&plan, &rows, &clusters, &file, watch)?;
        drop(rows);
        file.encode(&plan, geometry, watch)?;
        // One large array at a time: with the catalogue itself in memory every one counts.
        file.put(Kind::Order, 0, &[cast_slice(&geometry.order(&plan, &clusters))])?;
        file.positions(geometry, &plan, &clusters)?;
        drop(clusters);
        file.ids(std::mem::replace(&mut self.ids, OwnedIds::Rows), watch)?;
        let mut index = 0;
        let total = (numbers.len() + categories.len()) as u64;
        let order = if total == 0 { Vec::new() } else { file.order()? };
        for all in std::mem::take(&mut self.numbers) {
            watch.tell("writing columns", index.into(), total)?;
            file.numbers(index, &all, &order)?;
            index += 1;
        }
        for column in categories {
            watch.tell("writing columns", index.into(), total)?;
            file.categories(index, &column, &order)?;
            index += 1;
        }
        watch.tell("closing the file", 0, 0)?;
        file.close()?;
        let path = match &self.target {
            Target::File(beside) => Some(beside.path().to_owned()),
            Target::Memory(_) => None,
        };
        match (self.target.finish()?, path) {
            (Some(memory), _) => Catalog::from_memory(memory),
            (None, Some(path)) => Catalog::open(&path),
            (None, None) => unreachable!("a target is a file or memory"),
        }
    }

    fn id_kind(&self) -> IdKind {
        match &self.ids {
            OwnedIds::Rows => IdKind::Rows,
            OwnedIds::Integers(ids) if ids.iter().any(|id| *id >> 63 == 1) => IdKind::LargeIntegers,
            OwnedIds::Integers(_) => IdKind::Integers,
            OwnedIds::Texts { .. } => IdKind::Texts,
        }
    }
}

/// A scratch file beside the catalogue's, where there is room for such, or else in the system's
/// folder for them.
fn new_scratch(options: &Options) -> Result<Scratch> {
    let beside = options.path.as_deref().and_then(Path::parent);
    match beside {
        Some(folder) if folder.as_os_str().is_empty() => Scratch::unnamed(".".as_ref(), PREFIX),
        Some(folder) => Scratch::unnamed(folder, PREFIX),
        None => Scratch::unnamed(&std::env::temp_dir(), PREFIX),
    }
}

/// What names of scratch files start with.
const PREFIX: &str = "virtualtb_fast-";

fn check_length(what: &str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        Ok(())
    } else {
        Err(Error::argument(what, format!("{expected} values, one an item"), got))
    }
}
