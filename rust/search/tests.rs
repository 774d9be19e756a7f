//! Exactness: every path against the scalar reference, and that against double precision.

use proptest::prelude::*;

use super::testing::{Built, catalogue, catalogues, normals, sets, uniforms};
use super::*;

/// A search in every way that may not matter.
#[derive(Clone, Copy, Debug)]
struct Way {
    kernels: Kernels,
    width: Option<Width>,
    threads: usize,
    /// 1; less is a bound made wrong on purpose.
    slack: f64,
    /// See [`Tuning`].
    worth: usize,
}

type Answers = Vec<Vec<(u32, f32)>>;

fn find(
    view: &View<'_>,
    queries: &[f32],
    k: usize,
    allowed: Allowed<'_>,
    way: Way,
) -> Result<Answers> {
    let count = queries.len() / view.dimensions * k;
    let (mut rows, mut scores) = (vec![7; count], vec![7.0; count]);
    let job = Search { queries, first: 0, k, allowed, threads: way.threads };
    let (kernels, tick) = (way.kernels, || Ok(()));
    let tuning = Tuning { slack: way.slack, width: way.width, worth: way.worth };
    search_with(kernels, view, job, &tick, &mut rows, &mut scores, tuning)?;
    let pairs: Vec<_> = rows.into_iter().zip(scores).collect();
    Ok(pairs.chunks(k).map(<[_]>::to_vec).collect())
}

/// The reference's answers, padded.
fn wanted(view: &View<'_>, queries: &[f32], k: usize, allowed: Allowed<'_>) -> Answers {
    let one = |weights| {
        let mut top = reference::top(view, weights, k, allowed);
        top.resize(k, (NO_ROW, f32::NEG_INFINITY));
        top
    };
    queries.chunks(view.dimensions).map(one).collect()
}

/// All instruction sets, both widths, one thread.
fn ways() -> Vec<Way> {
    let widths = [Some(Width::Eight), Some(Width::Four)];
    let with = |kernels| widths.map(|width| Way { kernels, width, ..plain() });
    sets().into_iter().flat_map(with).collect()
}

fn plain() -> Way {
    Way {
        kernels: Kernels::best().unwrap(),
        width: None,
        threads: 1,
        slack: 1.0,
        worth: Tuning::USUAL.worth,
    }
}

/// Weights that suit a catalogue: most plain, some sparse, zero, negative or very small.
fn weights(kind: &str, dimensions: usize, queries: usize) -> Vec<f32> {
    let mut out = normals(77, dimensions * queries);
    let which = uniforms(78, queries);
    for (weights, which) in out.chunks_mut(dimensions).zip(which) {
        match (which * 20.0) as u32 {
            0 => weights.fill(0.0),
            1 => weights.iter_mut().skip(1).for_each(|w| *w = -0.0),
            2 => weights.iter_mut().for_each(|w| *w = -w.abs()),
            3 => weights.iter_mut().for_each(|w| *w *= 1e-20),
            _ => {}
        }
        if kind == "huge" {
            weights.iter_mut().for_each(|w| *w *= 1e-3);
        }
    }
    out
}

/// Whether answers are those of double precision within the rounding of single: at each place
/// stands a row whose true score misses the true one of that place by no more than both may be off.
fn near_double(view: &View<'_>, queries: &[f32], answers: &Answers) -> bool {
    let dimensions = view.dimensions;
    let epsilon = dimensions as f64 * f64::from(f32::EPSILON) / 2.0;
    let gamma = epsilon / (1.0 - epsilon);
    let mut position = vec![0; view.rows()];
    view.order.iter().enumerate().for_each(|(at, row)| position[*row as usize] = at);
    queries.chunks(dimensions).zip(answers).all(|(weights, answers)| {
        let terms = |at: usize| {
            let row = &view.attributes[at * dimensions..][..dimensions];
            row.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w))
        };
        // Denormal results may lose half of 2^-149 in every step.
        let lost = |at: usize| gamma * terms(at).map(f64::abs).sum::<f64>() + 4e-43;
        let mut upper: Vec<f64> =
            (0..view.rows()).map(|at| terms(at).sum::<f64>() - lost(at)).collect();
        upper.sort_unstable_by(|a, b| b.total_cmp(a));
        answers.iter().zip(upper).all(|((row, score), place)| {
            let at = position[*row as usize];
            let (truth, lost) = (terms(at).sum::<f64>(), lost(at));
            (f64::from(*score) - truth).abs() <= lost && truth + lost >= place
        })
    })
}

#[test]
fn a_thousand_queries_of_every_kind_rank_as_the_reference_and_as_double_precision() {
    for kind in ["uniform", "correlated", "clustered", "duplicates", "equal", "huge", "tiny"] {
        let built = Built::new(&catalogue(kind, 3_000, 27), 27);
        let (view, queries) = (built.view(), weights(kind, 27, 1_000));
        let want = wanted(&view, &queries, 10, Allowed::All);
        assert!(near_double(&view, &queries, &want), "{kind}");
        for way in ways() {
            let got = find(&view, &queries, 10, Allowed::All, way).unwrap();
            assert!(got == want, "{kind} {way:?}");
        }
        // The comparison with double precision can fail: the second best in the first place.
        let mut wrong = want.clone();
        wrong.iter_mut().for_each(|rows| rows.swap(0, 9));
        assert!(["equal", "duplicates"].contains(&kind) || !near_double(&view, &queries, &wrong));
    }
}

#[test]
fn every_k_and_dimension_ranks_as_the_reference() {
    for (kind, dimensions, rows) in catalogues(9_000) {
        let built = Built::new(&rows, dimensions);
        let view = built.view();
        for (queries, k) in [(37, 10), (9, 1), (3, 100), (3, 999), (2, 1_000)] {
            let queries = weights(kind, dimensions, queries);
            let want = wanted(&view, &queries, k, Allowed::All);
            for way in ways() {
                let got = find(&view, &queries, k, Allowed::All, way).unwrap();
                assert!(got == want, "{kind} {dimensions} {k} {way:?}");
            }
        }
    }
}

/// Positions, and the same as bits.
fn filter(rows: usize, share: f32, seed: u64) -> (Vec<u32>, Vec<u64>) {
    let draws = uniforms(seed, rows);
    let positions: Vec<u32> = (0..rows as u32).filter(|p| draws[*p as usize] < share).collect();
    let mut bits = vec![0; rows.div_ceil(64)];
    positions.iter().for_each(|p| bits[*p as usize / 64] |= 1 << (p % 64));
    (positions, bits)
}

#[test]
fn filters_of_every_selectivity_rank_as_the_reference() {
    for kind in ["uniform", "clustered", "duplicates"] {
        let built = Built::new(&catalogue(kind, 20_011, 27), 27);
        let (view, queries) = (built.view(), weights(kind, 27, 21));
        for share in [0.0, 1e-4, 5e-4, 2e-3, 0.01, 0.1, 0.5, 0.999, 1.0] {
            let (positions, mut bits) = filter(20_011, share, 5);
            let want = wanted(&view, &queries, 10, Allowed::Positions(&positions));
            // Bits past the last row are nobody's.
            *bits.last_mut().unwrap() |= u64::MAX << (20_011 % 64);
            for way in ways() {
                for allowed in [Allowed::Positions(&positions), Allowed::Bits(&bits)] {
                    let got = find(&view, &queries, 10, allowed, way).unwrap();
                    assert!(got == want, "{kind} {share} {way:?}");
                }
            }
            let found = want[0].iter().filter(|(row, _)| *row != NO_ROW).count();
            assert_eq!(found, positions.len().min(10));
        }
    }
}

#[test]
fn batches_and_threads_change_nothing() {
    let built = Built::new(&catalogue("clustered", 30_000, 27), 27);
    let (view, queries) = (built.view(), weights("clustered", 27, 300));
    let whole = find(&view, &queries, 10, Allowed::All, plain()).unwrap();
    for batch in [1, 2, 3, 31, 64, 257, 300] {
        // The last two split the catalogue among threads, however little work that is.
        for (threads, worth) in [(1, 500_000), (2, 500_000), (5, 500_000), (2, 1), (5, 1)] {
            let way = Way { threads, worth, ..plain() };
            let parts = queries
                .chunks(batch * 27)
                .flat_map(|queries| find(&view, queries, 10, Allowed::All, way).unwrap());
            assert!(parts.eq(whole.iter().cloned()), "{batch} {threads} {worth}");
        }
    }
}

#[test]
fn one_query_is_split_among_threads() {
    for (queries, threads) in [(1, 2), (1, 5), (9, 3)] {
        let split = Split::of(queries, 30_000, threads, false, 1);
        assert_eq!((split.parts, split.tasks()), (threads, threads));
    }
    assert_eq!(Split::of(1, 30_000, 5, false, Tuning::USUAL.worth).parts, 1);
}

/// A case of the property test.
#[derive(Clone, Debug)]
struct Case {
    kind: &'static str,
    dimensions: usize,
    rows: usize,
    queries: usize,
    k: usize,
    share: f32,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let kinds = ["uniform", "correlated", "clustered", "duplicates", "equal", "huge", "tiny"];
    let dimensions = prop_oneof![Just(1), Just(5), Just(27), Just(64), 1..40usize];
    let share = prop_oneof![Just(1.0), 0.0..1.0f32, 0.0..0.01f32];
    let k = prop_oneof![Just(10), 1..1_001usize];
    (
        prop::sample::select(kinds.to_vec()),
        dimensions,
        1..6_000usize,
        1..7usize,
        k,
        share,
        any::<u64>(),
    )
        .prop_map(|(kind, dimensions, rows, queries, k, share, seed)| Case {
            kind,
            dimensions,
            rows,
            queries,
            k,
            share,
            seed,
        })
}

impl Case {
    /// Whether a search, perhaps of a view made wrong, agrees with the reference; `undo` maps its
    /// answers back.
    fn agrees(
        &self,
        way: Way,
        order: impl Fn(&[u32]) -> Vec<u32>,
        undo: impl Fn(u32) -> u32,
    ) -> bool {
        let built = Built::new(&catalogue(self.kind, self.rows, self.dimensions), self.dimensions);
        let view = built.view();
        let queries = weights(self.kind, self.dimensions, self.queries);
        let (_, bits) = filter(self.rows, self.share, self.seed);
        let allowed = if self.share < 1.0 { Allowed::Bits(&bits) } else { Allowed::All };
        let want = wanted(&view, &queries, self.k, allowed);
        let order = order(view.order);
        let mut got =
            find(&View { order: &order, ..view }, &queries, self.k, allowed, way).unwrap();
        got.iter_mut().flatten().for_each(|(row, _)| *row = undo(*row));
        got == want
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_search_ranks_as_the_reference(case in cases()) {
        for way in ways() {
            prop_assert!(case.agrees(way, <[_]>::to_vec, |row| row), "{way:?} {case:?}");
        }
    }
}

/// The tests above can fail: searches made wrong on purpose do, on every instruction set.
#[test]
fn wrong_searches_are_caught() {
    let case = Case {
        kind: "uniform",
        dimensions: 27,
        rows: 6_000,
        queries: 60,
        k: 10,
        share: 1.0,
        seed: 1,
    };
    let tied = Case { kind: "duplicates", ..case.clone() };
    let last = case.rows as u32 - 1;
    for way in ways() {
        assert!(case.agrees(way, <[_]>::to_vec, |row| row));
        let bold = Way { slack: 0.0, ..way };
        assert!(!case.agrees(bold, <[_]>::to_vec, |row| row), "no error bound: {way:?}");
        // Rows numbered from the other end, so that ties go to the higher one.
        let reverse = |order: &[u32]| order.iter().map(|row| last - row).collect();
        let back = |row| if row == NO_ROW { row } else { last - row };
        assert!(!tied.agrees(way, reverse, back), "ties to the higher row: {way:?}");
        let shifted = |order: &[u32]| order.iter().map(|row| (row + 1) % (last + 1)).collect();
        assert!(!case.agrees(way, shifted, |row| row), "answers off by one: {way:?}");
    }
}

#[test]
fn equal_scores_go_to_the_lowest_rows() {
    let built = Built::new(&catalogue("uniform", 5_000, 3), 3);
    for way in ways() {
        let got = find(&built.view(), &[0.0, -0.0, 0.0], 7, Allowed::All, way).unwrap();
        let rows: Vec<u32> = got[0].iter().map(|(row, _)| *row).collect();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn an_overflow_names_the_lowest_query_and_row() {
    let mut rows = catalogue("uniform", 5_000, 3);
    rows[3 * 4_321] = 1e30;
    rows[3 * 1_234] = -1e30;
    let built = Built::new(&rows, 3);
    let mut queries = weights("uniform", 3, 40);
    queries[3 * 17..][..3].fill(1e9);
    queries[3 * 31..][..3].fill(1e9);
    for way in ways() {
        for (threads, worth) in [(1, way.worth), (3, way.worth), (3, 1)] {
            let search = |queries: &[f32], allowed| {
                find(&built.view(), queries, 2, allowed, Way { threads, worth, ..way })
            };
            let error = search(&queries, Allowed::All).unwrap_err().to_string();
            let message = "weights[17]: expected scores within single precision, got an overflow with item row 1234";
            assert_eq!(error, message);
            // Rows that are not allowed do no harm, nor do weights that are merely large.
            let sane: Vec<u32> = (0..5_000)
                .filter(|p| ![1_234, 4_321].contains(&built.order[*p as usize]))
                .collect();
            let got = search(&queries, Allowed::Positions(&sane)).unwrap();
            assert_eq!(got, wanted(&built.view(), &queries, 2, Allowed::Positions(&sane)));
            let large = [1e8, 1e8, 1e8];
            let got = search(&large, Allowed::All).unwrap();
            assert_eq!(got, wanted(&built.view(), &large, 2, Allowed::All));
        }
    }
}

#[test]
fn bad_calls_are_refused() {
    let built = Built::new(&catalogue("uniform", 100, 2), 2);
    let view = built.view();
    let message = |queries: &[f32], k, allowed| {
        find(&view, queries, k, allowed, plain()).unwrap_err().to_string()
    };
    let ok = [1.0, 2.0];
    assert_eq!(
        message(&[1.0; 3], 1, Allowed::All),
        "weights: expected rows of 2 values, got 3 values"
    );
    let got = message(&[0.0, 0.0, 0.0, f32::NAN], 1, Allowed::All);
    assert_eq!(got, "weights[1, 1]: expected a finite number, got NaN");
    assert_eq!(message(&ok, 0, Allowed::All), "k: expected 1 to 65536, got 0");
    assert!(message(&ok, MOST_K + 1, Allowed::All).starts_with("k: "));
    assert!(message(&ok, 1, Allowed::Positions(&[3, 3])).starts_with("positions: "));
    assert!(message(&ok, 1, Allowed::Positions(&[100])).starts_with("positions: "));
    assert!(message(&ok, 1, Allowed::Bits(&[0])).starts_with("bits: "));
    assert_eq!(find(&view, &[], 3, Allowed::All, plain()).unwrap(), Answers::new());
}

/// A mapped file may change under a search: whatever it reads then, it comes to an end.
#[test]
fn damaged_parts_do_no_more_than_spoil_answers() {
    let built = Built::new(&catalogue("clustered", 9_000, 5), 5);
    let view = built.view();
    let queries = weights("clustered", 5, 40);
    let noise: Vec<f32> = uniforms(9, built.bounds.len())
        .iter()
        .map(|u| f32::from_bits((u * 16_777_216.0) as u32 * 257))
        .collect();
    let attributes: Vec<f32> = noise.iter().cycle().take(view.attributes.len()).copied().collect();
    let codes = vec![0xA7; built.codes.len()];
    let order = vec![u32::MAX; view.order.len()];
    let views = [
        View { bounds: &noise, ..view },
        View { attributes: &attributes, ..view },
        View { codes: &codes, ..view },
        View { order: &order, ..view },
        View { order: &order, codes: &codes, bounds: &noise, attributes: &attributes, ..view },
    ];
    for view in views {
        for way in ways() {
            let _ = find(&view, &queries, 10, Allowed::All, way);
        }
    }
}
