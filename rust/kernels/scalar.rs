//! The reference: what every kernel computes, operation by operation.
//!
//! Everything here but [`dense`] is also compiled into the vector modules, where the compiler
//! turns the fixed lanes into registers; `inline(always)` is what lets it.

use super::heads::{Products, Softmax};
use super::scan::{BLOCK, CHUNKS, GROUP, Hit, Limits, NEVER, PAIR, PAIRS, Scan, Width};
use super::{Categorical, Dense, HALF, Head, PANEL, Panels, Start, math, select};
use crate::rng::{self, LANES, Origin};

pub use super::bytes::dense_bytes;

/// The leaky ReLU as a maximum: equal to it for slopes in [0, 1), and what `max` instructions do.
#[inline(always)]
pub fn leaky_relu(x: f32, slope: f32) -> f32 {
    let scaled = slope * x;
    if scaled > x { scaled } else { x }
}

/// See [`Dense`].
pub fn dense(job: Dense<'_>) {
    let padded = job.panels.padded();
    for row in 0..job.rows {
        let x = &job.x[row * job.x_stride..][..job.panels.inputs];
        let out = &mut job.out[row * job.out_stride..][..padded];
        for (column, out) in out.iter_mut().enumerate() {
            let mut sum = match job.start {
                Start::Bias(bias) => bias[column],
                Start::Rows(rows) => rows[row][column],
            };
            for (weight, x) in column_of(job.panels, column).zip(x) {
                sum = x.mul_add(weight, sum);
            }
            *out = job.slope.map_or(sum, |slope| leaky_relu(sum, slope));
        }
    }
}

/// The weights of one output, input by input.
fn column_of(panels: &Panels, column: usize) -> impl Iterator<Item = f32> + '_ {
    let panel = column / PANEL;
    let width = if panel < panels.full_panels() { PANEL } else { HALF };
    panels.data[panel * PANEL * panels.inputs..]
        .iter()
        .skip(column % PANEL)
        .step_by(width)
        .take(panels.inputs)
        .copied()
}

/// See [`Categorical`]. Eight rows go side by side.
#[inline(always)]
pub fn categorical(job: Categorical<'_>) {
    let heads = job.heads.len();
    let mut first = 0;
    while first < job.rows {
        let rows = (job.rows - first).min(LANES);
        for (index, head) in job.heads.iter().enumerate() {
            let mut uniforms = [0.0; LANES];
            for lane in 0..rows {
                uniforms[lane] = job.uniforms[(first + lane) * heads + index];
            }
            let logits = &job.logits[first * job.stride..];
            let drawn = if head.size <= 32 {
                draw::<32>(logits, job.stride, rows, *head, uniforms)
            } else {
                draw::<256>(logits, job.stride, rows, *head, uniforms)
            };
            for lane in 0..rows {
                job.out[(first + lane) * heads + index] = drawn[lane] as u8;
            }
        }
        first += rows;
    }
}

/// The categories of one head of at most `MOST` for up to eight rows.
#[inline(always)]
fn draw<const MOST: usize>(
    logits: &[f32],
    stride: usize,
    rows: usize,
    head: Head,
    uniforms: [f32; LANES],
) -> [u32; LANES] {
    // Lanes beyond the last row repeat it; nobody reads what they draw.
    let row = |lane: usize| &logits[lane.min(rows - 1) * stride + head.first..][..head.size];
    let lanes: [&[f32]; LANES] = std::array::from_fn(row);
    let mut values = [[0.0; LANES]; MOST];
    let values = &mut values[..head.size];
    for (index, values) in values.iter_mut().enumerate() {
        for lane in 0..LANES {
            values[lane] = lanes[lane][index];
        }
    }
    let mut largest = values[0];
    for logits in values.iter() {
        for lane in 0..LANES {
            largest[lane] = if logits[lane] > largest[lane] { logits[lane] } else { largest[lane] };
        }
    }
    let mut total = [0.0; LANES];
    for values in values.iter_mut() {
        for lane in 0..LANES {
            total[lane] += math::exp_nonpositive(values[lane] - largest[lane]);
        }
        *values = total;
    }
    // The cumulative sums never fall, so the first one above the threshold is the number of those
    // that are not; the last is left out, so that rounding cannot run past the end.
    let mut category = [0; LANES];
    for cumulative in &values[..head.size - 1] {
        for lane in 0..LANES {
            category[lane] += u32::from(cumulative[lane] <= uniforms[lane] * total[lane]);
        }
    }
    category
}

/// See [`Products`].
#[inline(always)]
pub fn products(job: Products<'_>) {
    for row in 0..job.rows {
        let left = &job.left[row * job.stride..][..job.width];
        let right = &job.right[row * job.stride..][..job.width];
        let out = &mut job.out[row * job.out_stride];
        *out = left.iter().zip(right).fold(*out, |sum, (a, b)| a.mul_add(*b, sum));
    }
}

/// See [`Softmax`]. The sum is [`draw`]'s: its last cumulative one.
#[inline(always)]
pub fn softmax(job: Softmax<'_>) {
    for row in job.logits.chunks_mut(job.stride).take(job.rows) {
        for head in job.heads {
            let values = &mut row[head.first..][..head.size];
            let largest = values
                .iter()
                .fold(values[0], |most, value| if *value > most { *value } else { most });
            for value in values.iter_mut() {
                *value = math::exp_nonpositive(*value - largest);
            }
            let total = values.iter().fold(0.0, |sum, value| sum + value);
            values.iter_mut().for_each(|value| *value /= total);
        }
    }
}

/// Bit `i % 64` of word `i / 64` is the answer for value `i`.
#[inline(always)]
fn answers<T: Copy>(values: &[T], words: &mut [u64], test: impl Fn(T) -> bool) {
    for (values, word) in values.chunks(64).zip(words) {
        let answers = values.iter().enumerate();
        *word = answers.fold(0, |sum, (bit, value)| sum | u64::from(test(*value)) << bit);
    }
}

/// See [`super::Kernels::within`].
#[inline(always)]
pub fn within(values: &[f32], low: f32, high: f32, words: &mut [u64]) {
    answers(values, words, |value| (low <= value) & (value <= high));
}

/// See [`super::Kernels::equal_bytes`].
#[inline(always)]
pub fn equal_bytes(values: &[u8], wanted: u8, words: &mut [u64]) {
    answers(values, words, |value| value == wanted);
}

/// See [`super::Kernels::ones`].
#[inline(always)]
pub fn ones(words: &[u64]) -> u64 {
    words.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// See [`rng::fill_words`].
#[inline(always)]
pub fn words(origin: Origin, block: u32, out: &mut [u32; 4 * LANES]) {
    rng::fill_words(origin, block, out);
}

/// See [`rng::fill`].
#[inline(always)]
pub fn uniforms(origin: Origin, out: &mut [f32]) {
    rng::fill(origin, out);
}

/// See [`rng::fill_first`].
#[inline(always)]
pub fn first_uniforms(origins: &[Origin], out: &mut [[f32; LANES]; 4]) {
    rng::fill_first(origins, out);
}

/// See [`math::normal`].
#[inline(always)]
pub fn normals(values: &mut [f32]) {
    for value in values {
        *value = math::normal(*value);
    }
}

/// See [`math::tanh`].
#[inline(always)]
pub fn tanh(values: &mut [f32]) {
    for value in values {
        *value = math::tanh(*value);
    }
}

/// See [`super::Kernels::select`].
#[inline(always)]
pub fn select(rows: &[&[f32]], out: &mut [u32]) {
    if rows.is_empty() {
        return;
    }
    let k = out.len() / rows.len();
    for (row, scores) in rows.iter().enumerate() {
        select::select(scores, &mut out[row * k..][..k]);
    }
}

/// Columns that [`sum_rows`] adds up at once while it goes through the rows: enough that finding a
/// row costs little, few enough for the registers.
const WIDE: usize = 4 * PANEL;

/// See [`super::Kernels::sum_rows`].
#[inline(always)]
pub fn sum_rows(start: &[f32], table: &[f32], rows: &[usize], out: &mut [f32]) {
    let width = start.len();
    let (wide, rest) = out.as_chunks_mut::<WIDE>();
    for (block, out) in wide.iter_mut().enumerate() {
        add_rows(start, table, rows, width, block * WIDE, out);
    }
    let first = width - rest.len();
    let (panels, rest) = rest.as_chunks_mut::<PANEL>();
    for (block, out) in panels.iter_mut().enumerate() {
        add_rows(start, table, rows, width, first + block * PANEL, out);
    }
    let first = width - rest.len();
    for (block, out) in rest.as_chunks_mut::<HALF>().0.iter_mut().enumerate() {
        add_rows(start, table, rows, width, first + block * HALF, out);
    }
}

/// `N` columns of [`sum_rows`], from `column` on.
#[inline(always)]
fn add_rows<const N: usize>(
    start: &[f32],
    table: &[f32],
    rows: &[usize],
    width: usize,
    column: usize,
    out: &mut [f32; N],
) {
    let mut sums = [0.0; N];
    sums.copy_from_slice(&start[column..][..N]);
    for row in rows {
        for (sum, weight) in sums.iter_mut().zip(&table[row * width + column..][..N]) {
            *sum += weight;
        }
    }
    *out = sums;
}

/// See [`Scan`].
pub fn scan(job: Scan<'_>) {
    let stride = GROUP * job.groups;
    for (slot, (query, least)) in job.slots.iter().zip(job.least).enumerate() {
        let weights = &job.queries[*query as usize * stride..][..stride];
        for pair in (0..PAIRS).filter(|pair| job.allowed[*pair] != 0) {
            let mut sums = [0; PAIR];
            for (group, weights) in weights.chunks_exact(GROUP).enumerate() {
                for (block, offset) in job.offsets(pair, group).into_iter().enumerate() {
                    for (at, code) in job.codes[offset..][..BLOCK * GROUP].iter().enumerate() {
                        let code = match (job.width, block) {
                            (Width::Eight, _) => *code,
                            (Width::Four, 0) => code & 15,
                            (Width::Four, _) => code >> 4,
                        };
                        sums[block * BLOCK + at / GROUP] +=
                            i32::from(weights[at % GROUP]) * i32::from(code);
                    }
                }
            }
            let reached = |(lane, sum): (usize, &i32)| u32::from(sum >= least) << lane;
            let lanes = sums.iter().enumerate().map(reached).fold(0, |a, b| a | b);
            let lanes = lanes & job.allowed[pair];
            if lanes != 0 {
                job.hits.push(Hit { sums, lanes, slot: slot as u32, pair: pair as u32 });
            }
        }
    }
}

/// See [`Limits`]; `search` derives the bounds. Sixteen chunks go side by side.
#[inline(always)]
pub fn limits(job: Limits<'_>) {
    let values = job.panel.as_chunks::<CHUNKS>().0;
    let (centres, extras) = values.split_at(job.dimensions);
    let [scale, radius, norm, magnitude] = extras else { unreachable!("checked") };
    for (query, terms) in job.terms.iter().enumerate() {
        let weights = &job.weights[query * job.dimensions..][..job.dimensions];
        let threshold = job.thresholds[query];
        let base = centre_scores(weights, centres);
        let mut error = [0.0_f32; CHUNKS];
        let mut least = [0; CHUNKS];
        for lane in 0..CHUNKS {
            // A few roundings of f32 are some 2e-7; 1e-36 is far above all denormal ones.
            let rounding = magnitude[lane] * terms.rounding + base[lane].abs() * 2e-6 + 1e-36;
            error[lane] = scale[lane] * terms.error + rounding;
            let ball = base[lane] + (terms.norm * radius[lane]) * 1.000_001 + rounding;
            let length = (terms.norm * norm[lane]) * 1.000_001 + rounding;
            let needed = threshold - base[lane] - error[lane] - threshold.abs() * 2e-6;
            let sum = needed / (scale[lane] * terms.unit) + terms.zero - 4.0;
            // Written so that what is not a number skips nothing. Truncation towards zero adds
            // less than one, which the 4 above allows for.
            let bounded = if sum < NEVER as f32 { sum } else { NEVER as f32 };
            let bounded = if bounded > -NEVER as f32 { bounded } else { -NEVER as f32 };
            let bounded = if sum.is_nan() { -NEVER as f32 } else { bounded };
            let out = ball < threshold || length < threshold;
            least[lane] = if out { NEVER } else { bounded as i32 };
        }
        (job.base[query], job.error[query], job.least[query]) = (base, error, least);
    }
}

/// The scores of sixteen centres, as two sums each, so that no step waits for the one before it.
#[inline(always)]
fn centre_scores(weights: &[f32], centres: &[[f32; CHUNKS]]) -> [f32; CHUNKS] {
    let (mut even, mut odd) = ([0.0_f32; CHUNKS], [0.0_f32; CHUNKS]);
    let (weight_pairs, last_weight) = weights.as_chunks::<2>();
    let (centre_pairs, last_centre) = centres.as_chunks::<2>();
    for (weight, centre) in weight_pairs.iter().zip(centre_pairs) {
        for lane in 0..CHUNKS {
            even[lane] = weight[0].mul_add(centre[0][lane], even[lane]);
        }
        for lane in 0..CHUNKS {
            odd[lane] = weight[1].mul_add(centre[1][lane], odd[lane]);
        }
    }
    for (weight, centre) in last_weight.iter().zip(last_centre) {
        for lane in 0..CHUNKS {
            even[lane] = weight.mul_add(centre[lane], even[lane]);
        }
    }
    for lane in 0..CHUNKS {
        even[lane] += odd[lane];
    }
    even
}

/// See [`super::Kernels::dots`]. Eight rows go side by side, each a chain of its own.
#[inline(always)]
pub fn dots(weights: &[f32], attributes: &[f32], rows: &[u32], out: &mut [f32]) {
    let row = |row: u32| &attributes[row as usize * weights.len()..][..weights.len()];
    let (eights, rest) = rows.as_chunks::<LANES>();
    let (out_eights, out_rest) = out.as_chunks_mut::<LANES>();
    for (rows, out) in eights.iter().zip(out_eights) {
        let rows = rows.map(row);
        let mut sums = [0.0; LANES];
        // Zipped, because indices would be checked for every product.
        let [a, b, c, d, e, f, g, h] = rows.map(|row| row.iter());
        let halves = a.zip(b).zip(c.zip(d)).zip(e.zip(f).zip(g.zip(h)));
        for (weight, (((a, b), (c, d)), ((e, f), (g, h)))) in weights.iter().zip(halves) {
            for (sum, x) in sums.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                *sum = weight.mul_add(*x, *sum);
            }
        }
        *out = sums;
    }
    for (number, out) in rest.iter().zip(out_rest) {
        *out = weights.iter().zip(row(*number)).fold(0.0, |sum, (w, x)| w.mul_add(*x, sum));
    }
}
