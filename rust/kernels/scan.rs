//! What the kernels of catalogue search take: the layout of quantised items, and the jobs.
//!
//! ```text
//! block   16 rows                       a vector register holds 16 rows x 4 dimensions of codes
//! pair    2 blocks, 32 rows             the unit of a hit and of filters
//! chunk   8 pairs, 256 rows             one centre, one scale, one bound
//! panel   16 chunks, 4,096 rows         one lane a chunk when bounds are computed
//! ```
//!
//! Codes of a chunk, eight bits wide: `[block][group][row of 16][dimension of 4]`. Four bits wide:
//! `[pair][group][row of 16][dimension of 4]`, the first block in the low halves of the bytes, the
//! second in the high halves. A group is four dimensions; those past the last have weight zero.
//!
//! Integer sums are exact on every instruction set: `|query| <= 64` and `code <= 255` keep the two
//! products that AVX2 adds in 16 bits below 2^15, and 512 dimensions below 2^23.

use super::Kernels;

/// Rows of a block.
pub const BLOCK: usize = 16;
/// Rows of a pair of blocks.
pub const PAIR: usize = 2 * BLOCK;
/// Pairs of a chunk.
pub const PAIRS: usize = 8;
/// Rows of a chunk.
pub const CHUNK: usize = PAIRS * PAIR;
/// Chunks of a panel.
pub const CHUNKS: usize = 16;
/// Rows of a panel.
pub const PANEL_ROWS: usize = CHUNKS * CHUNK;
/// Dimensions of a group.
pub const GROUP: usize = 4;
/// Largest magnitude of a quantised weight.
pub const MOST_WEIGHT: i32 = 64;
/// A least sum that no row reaches.
pub const NEVER: i32 = 1 << 24;
/// Values of a panel beside its centres: scale, radius, norm, magnitude.
pub const EXTRAS: usize = 4;

/// Groups of so many dimensions.
pub fn groups(dimensions: usize) -> usize {
    dimensions.div_ceil(GROUP)
}

/// How wide the codes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte a dimension: for many queries at a time, which are bound by arithmetic.
    Eight,
    /// Half a byte: for few queries, which are bound by memory.
    Four,
}

impl Width {
    /// Bytes of a chunk's codes.
    pub fn chunk_bytes(self, groups: usize) -> usize {
        match self {
            Self::Eight => CHUNK * GROUP * groups,
            Self::Four => CHUNK * GROUP * groups / 2,
        }
    }
}

/// A pair in which some allowed row reached the least sum of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Hit {
    /// The integer sums of all 32 rows.
    pub sums: [i32; PAIR],
    /// The rows that are allowed and reach the least sum, one bit each.
    pub lanes: u32,
    /// The query's place in the job's slots.
    pub slot: u32,
    /// The pair within the chunk.
    pub pair: u32,
}

/// Integer sums of the rows of one chunk for some queries: which of them reach a least sum?
#[derive(Debug)]
pub struct Scan<'a> {
    /// The chunk's codes.
    pub codes: &'a [u8],
    /// Their width.
    pub width: Width,
    /// Groups of four dimensions.
    pub groups: usize,
    /// The rows to look at, one bit each; pairs without any are passed over.
    pub allowed: [u32; PAIRS],
    /// Quantised weights of all queries, `groups * 4` each.
    pub queries: &'a [i8],
    /// The queries to compute.
    pub slots: &'a [u32],
    /// The least sum of each slot, at most [`NEVER`] in magnitude.
    pub least: &'a [i32],
    /// Hits are appended here, in no promised order.
    pub hits: &'a mut Vec<Hit>,
}

impl Scan<'_> {
    /// The bounds that the vector kernels rely on.
    fn check(&self) {
        assert_eq!(self.codes.len(), self.width.chunk_bytes(self.groups));
        assert_eq!(self.slots.len(), self.least.len());
        let queries = self.queries.len() / (GROUP * self.groups);
        assert!(self.slots.iter().all(|slot| (*slot as usize) < queries));
    }

    /// The codes of one group of a pair: both blocks (eight bits) or both halves (four bits).
    #[inline(always)]
    pub(super) fn offsets(&self, pair: usize, group: usize) -> [usize; 2] {
        let bytes = BLOCK * GROUP;
        match self.width {
            Width::Eight => {
                let block = 2 * pair * self.groups + group;
                [block * bytes, (block + self.groups) * bytes]
            }
            Width::Four => [(pair * self.groups + group) * bytes; 2],
        }
    }
}

/// A query's terms in the bounds of its scores; see `search` for the derivation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Worth of one unit of an integer sum, for a chunk of scale one.
    pub unit: f32,
    /// Error of the integer pass, for a chunk of scale one.
    pub error: f32,
    /// What a sum is when a row sits at the chunk's centre.
    pub zero: f32,
    /// Euclidean norm of the weights, rounded up.
    pub norm: f32,
    /// `norm` times the relative rounding error of dot products, rounded up.
    pub rounding: f32,
}

/// What a query's scores can be in the chunks of a panel.
#[derive(Debug)]
pub struct Limits<'a> {
    /// The panel: a centre, scale, radius, norm and magnitude a lane, `[value][lane]`.
    pub panel: &'a [f32],
    /// Weights of all queries.
    pub weights: &'a [f32],
    /// Dimensions.
    pub dimensions: usize,
    /// Terms of each query.
    pub terms: &'a [Terms],
    /// What a score must reach to matter, one a query.
    pub thresholds: &'a [f32],
    /// Out: the least sum that a row must reach, [`NEVER`] if no row of the chunk can.
    pub least: &'a mut [[i32; CHUNKS]],
    /// Out: the score at the chunk's centre.
    pub base: &'a mut [[f32; CHUNKS]],
    /// Out: by how much `base + unit * scale * (sum - zero)` can miss a row's score.
    pub error: &'a mut [[f32; CHUNKS]],
}

impl Limits<'_> {
    fn check(&self) {
        let queries = self.terms.len();
        assert_eq!(self.panel.len(), (self.dimensions + EXTRAS) * CHUNKS);
        assert_eq!(self.weights.len(), queries * self.dimensions);
        assert_eq!(self.thresholds.len(), queries);
        assert_eq!(self.least.len(), queries);
        assert_eq!(self.base.len(), queries);
        assert_eq!(self.error.len(), queries);
    }
}

impl Kernels {
    /// Finds the rows of a chunk whose integer sums reach the least sums.
    pub fn scan(self, job: Scan<'_>) {
        job.check();
        dispatch!(self, scan(job));
    }

    /// Bounds the scores of every query in the chunks of a panel.
    pub fn limits(self, job: Limits<'_>) {
        job.check();
        dispatch!(self, limits(job));
    }

    /// The score of each row: a fused dot product in the order of the dimensions, from zero.
    ///
    /// `rows` are numbers of rows of `attributes`, each as long as `weights`.
    pub fn dots(self, weights: &[f32], attributes: &[f32], rows: &[u32], out: &mut [f32]) {
        assert_eq!(rows.len(), out.len());
        dispatch!(self, dots(weights, attributes, rows, out));
    }
}
