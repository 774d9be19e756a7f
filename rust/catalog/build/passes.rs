//! The passes of a build over all attributes.

use std::ops::ControlFlow;

use bytemuck::cast_slice;

use super::Watch;
use super::output::Output;
use super::rows::Rows;
use crate::catalog::format::Kind;
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::parallel;
use crate::search::Plan;

/// Memory of the buffers through which rows go to their clusters.
const BUFFER_BYTES: usize = 64 << 20;
/// Rows that are read at a time.
const CHUNK_ROWS: usize = 1 << 14;
const CHUNK_BYTES: usize = 4 << 20;

/// Sizes of a build, and its passes over all attributes.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Items.
    pub rows: usize,
    /// Attributes of an item.
    pub dimensions: usize,
    /// Threads.
    pub threads: usize,
}

impl Geometry {
    /// Rows that are read at a time.
    pub fn chunk(self) -> usize {
        CHUNK_ROWS.min(CHUNK_BYTES / (4 * self.dimensions)).max(1)
    }

    /// Rows of chunk number `index`: the first and how many.
    pub fn chunk_rows(self, index: u64) -> (usize, usize) {
        let first = index as usize * self.chunk();
        (first, self.chunk().min(self.rows - first))
    }

    pub fn chunks(self) -> u64 {
        self.rows.div_ceil(self.chunk()) as u64
    }

    /// Each row's cluster.
    pub fn assign(self, plan: &Plan, rows: &Rows<'_>, watch: &Watch<'_>) -> Result<Vec<u16>> {
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
    pub fn starts(self, plan: &Plan, clusters: &[u16]) -> Vec<usize> {
        let mut starts = vec![0; plan.clusters() as usize + 1];
        for cluster in clusters {
            starts[usize::from(*cluster) + 1] += 1;
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        starts
    }

    /// The row at each position.
    pub fn order(self, plan: &Plan, clusters: &[u16]) -> Vec<u32> {
        let (mut next, mut order) = (self.starts(plan, clusters), vec![0; self.rows]);
        for (row, cluster) in clusters.iter().enumerate() {
            let position = &mut next[usize::from(*cluster)];
            order[*position] = row as u32;
            *position += 1;
        }
        order
    }

    /// Writes every row's attributes to its place.
    pub fn distribute(
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
            file.target.write(base + (*next * d * 4) as u64, cast_slice(held))?;
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
