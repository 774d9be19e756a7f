//! A catalogue's file while its sections are filled in.

use bytemuck::cast_slice;

use super::Watch;
use super::passes::Geometry;
use super::rows::{OwnedIds, read_values};
use crate::catalog::columns::{self, FinishedCategories, FinishedValues};
use crate::catalog::format::{self, BLOCK, Column, Header, Kind};
use crate::catalog::ids::{self, Ids};
use crate::catalog::target::{Target, Writer};
use crate::error::{Error, Result};
use crate::search::Plan;
use crate::search::index::{self, Encoder};

/// Positions that are made at a time.
const POSITIONS: usize = 1 << 20;

/// The file while its sections are filled in.
pub struct Output<'a> {
    /// Where it is written.
    pub target: &'a mut Target,
    header: Header,
    header_bytes: u64,
    file_bytes: u64,
}

impl<'a> Output<'a> {
    /// Lays the file out and makes room for it; writes the plan.
    pub fn new(
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

    pub fn section(&self, kind: Kind, column: u32) -> &format::Section {
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
    pub fn put(&mut self, kind: Kind, column: u32, parts: &[&[u8]]) -> Result<()> {
        let mut writer = self.writer(kind, column);
        parts.iter().try_for_each(|part| writer.push(part))?;
        let sum = writer.finish();
        self.seal(kind, column, sum);
        Ok(())
    }

    /// Reads the attributes through, for their checksum, codes and bounds.
    pub fn encode(&mut self, plan: &Plan, geometry: Geometry, watch: &Watch<'_>) -> Result<()> {
        let d = geometry.dimensions;
        let base = self.section(Kind::Attributes, 0).offset;
        let mut attributes = self.writer(Kind::Attributes, 0);
        let mut encoded = [self.writer(Kind::Codes, 0), self.writer(Kind::Bounds, 0)];
        let mut encoder = Encoder::new(plan);
        let (mut buffer, mut codes, mut bounds) = (Vec::new(), Vec::new(), Vec::new());
        let mut flush = |codes: &mut Vec<u8>, bounds: &mut Vec<f32>| {
            encoded[0].push(codes)?;
            encoded[1].push(cast_slice(bounds))?;
            codes.clear();
            bounds.clear();
            Ok::<_, Error>(())
        };
        for index in 0..geometry.chunks() {
            let (first, count) = geometry.chunk_rows(index);
            watch.tell("encoding", first as u64, geometry.rows as u64)?;
            let offset = base + (first * d * 4) as u64;
            read_values(count * d, &mut buffer, |bytes| self.target.read(offset, bytes))?;
            attributes.seen(cast_slice(&buffer));
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

    /// Writes the position of each row.
    pub fn positions(&mut self, geometry: Geometry, plan: &Plan, clusters: &[u16]) -> Result<()> {
        let mut next = geometry.starts(plan, clusters);
        let mut writer = self.writer(Kind::Positions, 0);
        for clusters in clusters.chunks(POSITIONS) {
            let place = |cluster: &u16| {
                let position = &mut next[usize::from(*cluster)];
                *position += 1;
                (*position - 1) as u32
            };
            let positions: Vec<u32> = clusters.iter().map(place).collect();
            writer.push(cast_slice(&positions))?;
        }
        let sum = writer.finish();
        self.seal(Kind::Positions, 0, sum);
        Ok(())
    }

    /// Reads back the row at each position.
    pub fn order(&self) -> Result<Vec<u32>> {
        let mut order = vec![0; self.header.rows as usize];
        let offset = self.section(Kind::Order, 0).offset;
        self.target.read(offset, bytemuck::cast_slice_mut(&mut order))?;
        Ok(order)
    }

    pub fn ids(&mut self, ids: OwnedIds, watch: &Watch<'_>) -> Result<()> {
        let rows = self.header.rows;
        let held = match &ids {
            OwnedIds::Rows => return Ok(()),
            OwnedIds::Integers(ids) => {
                self.put(Kind::Ids, 0, &[cast_slice(ids)])?;
                Ids::Integers(ids)
            }
            OwnedIds::Texts { offsets, bytes: texts } => {
                self.put(Kind::Ids, 0, &[cast_slice(offsets)])?;
                self.put(Kind::IdTexts, 0, &[texts])?;
                Ids::Texts { offsets, bytes: texts }
            }
        };
        let tell = |row: u32| watch.tell("indexing ids", row.into(), rows);
        let table = ids::table(held, rows as u32, tell)?;
        self.put(Kind::IdTable, 0, &[cast_slice(&table)])
    }

    pub fn numbers(&mut self, column: u32, all: &[f32], order: &[u32]) -> Result<()> {
        let stored: Vec<f32> = order.iter().map(|row| all[*row as usize]).collect();
        self.put(Kind::Numbers, column, &[cast_slice(&stored)])?;
        drop(stored);
        self.lists(Kind::Sorted, column, &columns::sorted(all, order))
    }

    pub fn categories(
        &mut self,
        column: u32,
        all: &FinishedCategories,
        order: &[u32],
    ) -> Result<()> {
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
            FinishedValues::Integers(values) => {
                self.put(Kind::Values, column, &[cast_slice(values)])?
            }
            FinishedValues::Texts { offsets, bytes: texts } => {
                self.put(Kind::Values, column, &[cast_slice(offsets)])?;
                self.put(Kind::ValueTexts, column, &[texts])?;
            }
        }
        self.put(Kind::Starts, column, &[cast_slice(&all.starts())])?;
        self.lists(Kind::Lists, column, &all.lists(order))
    }

    /// Writes positions and the checksums of their blocks.
    fn lists(&mut self, kind: Kind, column: u32, lists: &[u32]) -> Result<()> {
        self.put(kind, column, &[cast_slice(lists)])?;
        let blocks = lists.chunks(BLOCK as usize);
        let sums: Vec<u64> = blocks.map(|block| format::block_sum(cast_slice(block))).collect();
        self.put(Kind::Sums, column, &[cast_slice(&sums)])
    }

    /// Writes the header: the file is complete.
    pub fn close(self) -> Result<()> {
        self.target.write(0, &self.header.to_bytes(self.header_bytes, self.file_bytes))
    }
}
