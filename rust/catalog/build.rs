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

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Mutex;

use arrow_array::{Array, Int64Array, StringArray};
use memmap2::MmapMut;

use super::Catalog;
use super::columns::{self, Categories, FinishedCategories, FinishedValues, Value};
use super::format::{
    self, BLOCK, Column, Header, IdKind, Kind, MOST_DIMENSIONS, MOST_ROWS, check_names,
};
use super::ids::{self, Ids};
use super::mapped::bytes;
use super::target::{Beside, Scratch, Target, Writer};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::parallel;
use crate::search::Plan;
use crate::search::index::{self, Encoder};
use crate::tensor_file::partial;

/// Rows that the plan is learned from: at most so many, and so many bytes.
const SAMPLE_ROWS: usize = 200_000;
const SAMPLE_BYTES: usize = 64 << 20;
/// Memory of the buffers through which rows go to their clusters.
const BUFFER_BYTES: usize = 64 << 20;
/// Rows that are read at a time.
const CHUNK_ROWS: usize = 1 << 14;
const CHUNK_BYTES: usize = 4 << 20;

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

/// Ids while they come.
#[derive(Debug)]
enum OwnedIds {
    Rows,
    Integers(Vec<u64>),
    Texts { offsets: Vec<u64>, bytes: Vec<u8> },
}

/// Where attributes are until they have their place.
enum Rows<'a> {
    Memory(&'a [f32]),
    Scratch(Scratch),
}

impl Rows<'_> {
    /// Some consecutive rows' values, from value number `first`.
    fn read<'b>(
        &'b self,
        first: usize,
        values: usize,
        buffer: &'b mut Vec<f32>,
    ) -> Result<&'b [f32]> {
        match self {
            Self::Memory(all) => Ok(&all[first..][..values]),
            Self::Scratch(scratch) => {
                read_values(values, buffer, |bytes| scratch.read(4 * first as u64, bytes))?;
                Ok(buffer)
            }
        }
    }
}

/// Reads values through bytes, without a copy of its own.
fn read_values(
    count: usize,
    buffer: &mut Vec<f32>,
    read: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<()> {
    buffer.resize(count, 0.0);
    read(super::mapped::bytes_mut(buffer))
}

/// A bounded choice of rows that depends on the rows alone: those whose number's hash is small.
#[derive(Debug)]
struct Sample {
    rows: Vec<f32>,
    keys: Vec<u64>,
    most: usize,
    threshold: u64,
}

impl Sample {
    fn new(dimensions: usize) -> Self {
        let most = SAMPLE_ROWS.min(SAMPLE_BYTES / (4 * dimensions));
        Self { rows: Vec::new(), keys: Vec::new(), most, threshold: u64::MAX }
    }

    fn push(&mut self, row: u64, values: &[f32]) {
        let key = ids::mix(row);
        if key > self.threshold {
            return;
        }
        self.keys.push(key);
        self.rows.extend(values);
        if self.keys.len() > self.most {
            self.threshold /= 2;
            let mut kept = 0;
            for index in 0..self.keys.len() {
                if self.keys[index] <= self.threshold {
                    self.keys[kept] = self.keys[index];
                    let width = values.len();
                    self.rows.copy_within(index * width..(index + 1) * width, kept * width);
                    kept += 1;
                }
            }
            self.keys.truncate(kept);
            self.rows.truncate(kept * values.len());
        }
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
        let scratch = scratch.then(|| Scratch::unnamed(&scratch_path(options))).transpose()?;
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
            scratch.write(4 * self.rows * dimensions as u64, bytes(piece.attributes))?;
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
        let (order, positions) = geometry.order(&plan, &clusters);
        drop(clusters);
        file.put(Kind::Order, 0, &[bytes(&order)])?;
        file.put(Kind::Positions, 0, &[bytes(&positions)])?;
        drop(positions);
        file.ids(std::mem::replace(&mut self.ids, OwnedIds::Rows), watch)?;
        let mut index = 0;
        let total = (numbers.len() + categories.len()) as u64;
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

fn scratch_path(options: &Options) -> PathBuf {
    match &options.path {
        Some(path) => partial(&partial(path)),
        None => {
            static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
            let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let name = format!("virtualtb_fast-{}-{number}.partial", std::process::id());
            std::env::temp_dir().join(name)
        }
    }
}

fn check_length(what: &str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        Ok(())
    } else {
        Err(Error::argument(what, format!("{expected} values, one an item"), got))
    }
}

/// Sizes of a build, and its passes over all attributes.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    rows: usize,
    dimensions: usize,
    threads: usize,
}

impl Geometry {
    /// Rows that are read at a time.
    fn chunk(self) -> usize {
        CHUNK_ROWS.min(CHUNK_BYTES / (4 * self.dimensions)).max(1)
    }

    /// Rows of chunk number `index`: the first and how many.
    fn chunk_rows(self, index: u64) -> (usize, usize) {
        let first = index as usize * self.chunk();
        (first, self.chunk().min(self.rows - first))
    }

    fn chunks(self) -> u64 {
        self.rows.div_ceil(self.chunk()) as u64
    }

    /// Each row's cluster.
    fn assign(self, plan: &Plan, rows: &Rows<'_>, watch: &Watch<'_>) -> Result<Vec<u16>> {
        assert!(plan.clusters() <= 1 << 16, "clusters have 16 bits here");
        let (kernels, mut clusters) = (Kernels::best()?, Vec::with_capacity(self.rows));
        let work = |index, _: &dyn Fn() -> bool| {
            let (first, count) = self.chunk_rows(index);
            let (mut buffer, d) = (Vec::new(), self.dimensions);
            let values = rows.read(first * d, count * d, &mut buffer)?;
            let mut wide = vec![0; count];
            plan.clusters_of(kernels, values, &mut wide);
            Ok(wide.into_iter().map(|cluster| cluster as u16).collect())
        };
        let take = |chunk: Result<Vec<u16>>| {
            clusters.extend(chunk?);
            (watch.progress)("assigning clusters", clusters.len() as u64, self.rows as u64);
            Ok(ControlFlow::Continue(()))
        };
        parallel::ordered(self.threads, self.chunks(), work, take, watch.interrupt)?;
        Ok(clusters)
    }

    /// Where each cluster's rows start.
    fn starts(self, plan: &Plan, clusters: &[u16]) -> Vec<usize> {
        let mut starts = vec![0; plan.clusters() as usize + 1];
        for cluster in clusters {
            starts[usize::from(*cluster) + 1] += 1;
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        starts
    }

    /// The row at each position, and the position of each row.
    fn order(self, plan: &Plan, clusters: &[u16]) -> (Vec<u32>, Vec<u32>) {
        let mut next = self.starts(plan, clusters);
        let (mut order, mut positions) = (vec![0; self.rows], vec![0; self.rows]);
        for (row, cluster) in clusters.iter().enumerate() {
            let position = &mut next[usize::from(*cluster)];
            (order[*position], positions[row]) = (row as u32, *position as u32);
            *position += 1;
        }
        (order, positions)
    }

    /// Writes every row's attributes to its place.
    fn distribute(
        self,
        plan: &Plan,
        rows: &Rows<'_>,
        clusters: &[u16],
        file: &Output<'_>,
        watch: &Watch<'_>,
    ) -> Result<()> {
        let d = self.dimensions;
        let mut next = self.starts(plan, clusters);
        let count = plan.clusters() as usize;
        let room = (BUFFER_BYTES / (4 * d * count)).clamp(1, self.chunk());
        let mut buffers = vec![0.0; room * d * count];
        let mut filled = vec![0; count];
        let base = file.section(Kind::Attributes, 0).offset;
        let flush = |cluster: usize, filled: &mut usize, next: &mut usize, buffers: &[f32]| {
            let held = &buffers[cluster * room * d..][..*filled * d];
            file.target.write(base + (*next * d * 4) as u64, bytes(held))?;
            *next += std::mem::take(filled);
            Ok::<_, Error>(())
        };
        let mut buffer = Vec::new();
        for index in 0..self.chunks() {
            let (first, count) = self.chunk_rows(index);
            watch.tell("sorting rows by cluster", first as u64, self.rows as u64)?;
            let values = rows.read(first * d, count * d, &mut buffer)?;
            for (row, cluster) in values.chunks_exact(d).zip(&clusters[first..]) {
                let cluster = usize::from(*cluster);
                let at = (cluster * room + filled[cluster]) * d;
                buffers[at..at + d].copy_from_slice(row);
                filled[cluster] += 1;
                if filled[cluster] == room {
                    flush(cluster, &mut filled[cluster], &mut next[cluster], &buffers)?;
                }
            }
        }
        for cluster in 0..count {
            flush(cluster, &mut filled[cluster], &mut next[cluster], &buffers)?;
        }
        Ok(())
    }
}

/// The file while its sections are filled in.
struct Output<'a> {
    target: &'a mut Target,
    header: Header,
    header_bytes: u64,
    file_bytes: u64,
}

impl<'a> Output<'a> {
    /// Lays the file out and makes room for it; writes the plan.
    fn new(
        mut header: Header,
        plan: &Plan,
        ids: &OwnedIds,
        categories: &[FinishedCategories],
        target: &'a mut Target,
    ) -> Result<Self> {
        let plan_bytes = plan.to_bytes();
        let index = index::Sizes::of(header.rows, plan.dimensions());
        let numbers = header.columns.len() - categories.len();
        let free = |kind, column: u32| match kind {
            Kind::Plan => plan_bytes.len() as u64,
            Kind::Codes => index.codes,
            Kind::Bounds => 4 * index.bounds,
            Kind::IdTexts => match ids {
                OwnedIds::Texts { bytes, .. } => bytes.len() as u64,
                _ => unreachable!("only texts have a section of texts"),
            },
            Kind::ValueTexts => match &categories[column as usize - numbers].values {
                FinishedValues::Texts { bytes, .. } => bytes.len() as u64,
                FinishedValues::Integers(_) => unreachable!("only texts have a section of texts"),
            },
            other => unreachable!("the size of {other:?} follows from the header"),
        };
        let sizes: Vec<u64> = header
            .expected()
            .into_iter()
            .map(|(kind, column, bytes)| bytes.unwrap_or_else(|| free(kind, column)))
            .collect();
        let (header_bytes, file_bytes) = header.place(&sizes);
        target.reserve(file_bytes)?;
        let mut file = Self { target, header, header_bytes, file_bytes };
        file.put(Kind::Plan, 0, &[&plan_bytes])?;
        Ok(file)
    }

    fn section(&self, kind: Kind, column: u32) -> &format::Section {
        let mut all = self.header.sections.iter();
        all.find(|section| section.kind == kind && section.column == column).expect("it was placed")
    }

    fn writer(&self, kind: Kind, column: u32) -> Writer<'_> {
        let section = self.section(kind, column);
        Writer::new(self.target, section.offset, section.bytes)
    }

    fn seal(&mut self, kind: Kind, column: u32, sha256: String) {
        let mut all = self.header.sections.iter_mut();
        let section = all.find(|section| section.kind == kind && section.column == column);
        section.expect("it was placed").sha256 = sha256;
    }

    /// Writes a whole section.
    fn put(&mut self, kind: Kind, column: u32, parts: &[&[u8]]) -> Result<()> {
        let mut writer = self.writer(kind, column);
        parts.iter().try_for_each(|part| writer.push(part))?;
        let sum = writer.finish();
        self.seal(kind, column, sum);
        Ok(())
    }

    /// Reads the attributes through, for their checksum, codes and bounds.
    fn encode(&mut self, plan: &Plan, geometry: Geometry, watch: &Watch<'_>) -> Result<()> {
        let d = geometry.dimensions;
        let base = self.section(Kind::Attributes, 0).offset;
        let mut attributes = self.writer(Kind::Attributes, 0);
        let mut encoded = [self.writer(Kind::Codes, 0), self.writer(Kind::Bounds, 0)];
        let mut encoder = Encoder::new(plan);
        let (mut buffer, mut codes, mut bounds) = (Vec::new(), Vec::new(), Vec::new());
        let mut flush = |codes: &mut Vec<u8>, bounds: &mut Vec<f32>| {
            encoded[0].push(codes)?;
            encoded[1].push(bytes(bounds))?;
            codes.clear();
            bounds.clear();
            Ok::<_, Error>(())
        };
        for index in 0..geometry.chunks() {
            let (first, count) = geometry.chunk_rows(index);
            watch.tell("encoding", first as u64, geometry.rows as u64)?;
            let offset = base + (first * d * 4) as u64;
            read_values(count * d, &mut buffer, |bytes| self.target.read(offset, bytes))?;
            attributes.seen(bytes(&buffer));
            encoder.push(&buffer, &mut codes, &mut bounds);
            flush(&mut codes, &mut bounds)?;
        }
        encoder.finish(&mut codes, &mut bounds);
        flush(&mut codes, &mut bounds)?;
        let sums = [attributes.finish()].into_iter().chain(encoded.map(Writer::finish));
        let sums: Vec<_> =
            [Kind::Attributes, Kind::Codes, Kind::Bounds].into_iter().zip(sums).collect();
        sums.into_iter().for_each(|(kind, sum)| self.seal(kind, 0, sum));
        Ok(())
    }

    fn ids(&mut self, ids: OwnedIds, watch: &Watch<'_>) -> Result<()> {
        let rows = self.header.rows;
        let held = match &ids {
            OwnedIds::Rows => return Ok(()),
            OwnedIds::Integers(ids) => {
                self.put(Kind::Ids, 0, &[bytes(ids)])?;
                Ids::Integers(ids)
            }
            OwnedIds::Texts { offsets, bytes: texts } => {
                self.put(Kind::Ids, 0, &[bytes(offsets)])?;
                self.put(Kind::IdTexts, 0, &[texts])?;
                Ids::Texts { offsets, bytes: texts }
            }
        };
        let tell = |row: u32| watch.tell("indexing ids", row.into(), rows);
        let table = ids::table(held, rows as u32, tell)?;
        self.put(Kind::IdTable, 0, &[bytes(&table)])
    }

    fn numbers(&mut self, column: u32, all: &[f32], order: &[u32]) -> Result<()> {
        let stored: Vec<f32> = order.iter().map(|row| all[*row as usize]).collect();
        self.put(Kind::Numbers, column, &[bytes(&stored)])?;
        drop(stored);
        self.lists(Kind::Sorted, column, &columns::sorted(all, order))
    }

    fn categories(&mut self, column: u32, all: &FinishedCategories, order: &[u32]) -> Result<()> {
        let codes = order.iter().map(|row| all.codes[*row as usize]);
        let width = Column::code_width(all.counts.len() as u32);
        let stored: Vec<u8> = match width {
            1 => codes.map(|code| code as u8).collect(),
            2 => codes.flat_map(|code| (code as u16).to_le_bytes()).collect(),
            _ => codes.flat_map(u32::to_le_bytes).collect(),
        };
        self.put(Kind::CodesOf, column, &[&stored])?;
        drop(stored);
        match &all.values {
            FinishedValues::Integers(values) => self.put(Kind::Values, column, &[bytes(values)])?,
            FinishedValues::Texts { offsets, bytes: texts } => {
                self.put(Kind::Values, column, &[bytes(offsets)])?;
                self.put(Kind::ValueTexts, column, &[texts])?;
            }
        }
        self.put(Kind::Starts, column, &[bytes(&all.starts())])?;
        self.lists(Kind::Lists, column, &all.lists(order))
    }

    /// Writes positions and the checksums of their blocks.
    fn lists(&mut self, kind: Kind, column: u32, lists: &[u32]) -> Result<()> {
        self.put(kind, column, &[bytes(lists)])?;
        let blocks = lists.chunks(BLOCK as usize);
        let sums: Vec<u64> = blocks.map(|block| format::block_sum(bytes(block))).collect();
        self.put(Kind::Sums, column, &[bytes(&sums)])
    }

    /// Writes the header: the file is complete.
    fn close(self) -> Result<()> {
        self.target.write(0, &self.header.to_bytes(self.header_bytes, self.file_bytes))
    }
}
