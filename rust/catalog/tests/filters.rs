//! Filters against a look at every item.

use proptest::prelude::*;

use super::*;

/// A filter as a test writes it.
#[derive(Clone, Debug)]
enum Wanted {
    Brands(Vec<u32>),
    Years(Vec<i64>),
    Prices(Option<f64>, Option<f64>),
    Rows(Vec<u32>),
}

impl Wanted {
    fn meets(&self, items: &Items, row: usize) -> bool {
        match self {
            Self::Brands(brands) => items.brands[row]
                .as_ref()
                .is_some_and(|brand| brands.iter().any(|b| *brand == format!("brand {b}"))),
            Self::Years(years) => items.years[row].is_some_and(|year| years.contains(&year)),
            Self::Prices(low, high) => {
                let price = items.prices[row];
                low.is_none_or(|low| price >= low as f32)
                    && high.is_none_or(|high| price <= high as f32)
                    && !price.is_nan()
            }
            Self::Rows(rows) => rows.contains(&(row as u32)),
        }
    }

    fn condition(&self, catalog: &Catalog) -> Condition {
        match self {
            Self::Brands(brands) => {
                let names: Vec<_> = brands.iter().map(|brand| format!("brand {brand}")).collect();
                let names: Vec<_> = names.iter().map(|name| Value::Text(name)).collect();
                catalog.any_of(1, &names).unwrap()
            }
            Self::Years(years) => {
                let years: Vec<_> = years.iter().map(|year| Value::Integer(*year)).collect();
                catalog.any_of(2, &years).unwrap()
            }
            Self::Prices(low, high) => catalog.between(0, *low, *high).unwrap(),
            Self::Rows(rows) => Condition::Rows(rows.clone()),
        }
    }
}

fn wanted(rows: u32) -> impl Strategy<Value = Wanted> {
    let bound = || proptest::option::of(-10.0..110.0);
    prop_oneof![
        proptest::collection::vec(0_u32..12, 0..5).prop_map(Wanted::Brands),
        proptest::collection::vec(-210_i64..210, 0..90).prop_map(Wanted::Years),
        (bound(), bound()).prop_map(|(low, high)| match (low, high) {
            (Some(a), Some(b)) => Wanted::Prices(Some(f64::min(a, b)), Some(f64::max(a, b))),
            (low, high) => Wanted::Prices(low, high),
        }),
        (0.0_f64..100.0, 0.0_f64..3.0)
            .prop_map(|(low, width)| Wanted::Prices(Some(low), Some(low + width))),
        proptest::collection::vec(0..rows, 0..400).prop_map(Wanted::Rows),
    ]
}

fn selected(catalog: &Catalog, of: &Selection) -> Vec<u32> {
    let positions: Vec<u32> = match of {
        Selection::All => (0..catalog.rows() as u32).collect(),
        Selection::Positions(positions) => positions.clone(),
        Selection::Bits(bits, _) => {
            let set = |p: &u32| bits[*p as usize / 64] >> (p % 64) & 1 == 1;
            (0..64 * bits.len() as u32).filter(set).collect()
        }
    };
    assert!(positions.is_sorted_by(|a, b| a < b));
    assert_eq!(positions.len() as u64, of.count(catalog.rows()));
    let order = catalog.view().order;
    let mut rows: Vec<_> = positions.iter().map(|position| order[*position as usize]).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn filters_select_what_a_look_at_every_item_selects() {
    let rows = 30_000;
    let items = Items::random(rows as usize, 2, 21);
    let catalog = items.in_memory();
    let filters = proptest::collection::vec(wanted(rows), 0..4);
    let kinds = std::cell::RefCell::new([0; 3]);
    proptest!(ProptestConfig::with_cases(700), |(filters in filters)| {
        let conditions: Vec<_> = filters.iter().map(|f| f.condition(&catalog)).collect();
        let of = catalog.select(&conditions).unwrap();
        let all = (0..rows).filter(|row| filters.iter().all(|f| f.meets(&items, *row as usize)));
        prop_assert_eq!(selected(&catalog, &of), all.collect::<Vec<_>>());
        kinds.borrow_mut()[match *of {
            Selection::All => 0,
            Selection::Positions(_) => 1,
            Selection::Bits(..) => 2,
        }] += 1;
        // A second time, from memory of the first.
        prop_assert_eq!(catalog.select(&conditions).unwrap(), of);
    });
    // Every form was there to be tested.
    assert!(kinds.borrow().iter().all(|count| *count > 20), "{kinds:?}");
}

#[test]
fn wide_columns_of_categories_work_too() {
    for values in [1, 255, 256, 3000, 65_535, 65_536] {
        let rows = 70_000;
        let mut items = Items::random(rows, 1, 22);
        items.years = (0..rows as i64).map(|row| (row % 7 > 0).then_some(row % values)).collect();
        items.years[0] = Some(0);
        let catalog = items.in_memory();
        for years in [vec![0], vec![0, 1, values - 1, values], (0..values / 2 + 1).collect()] {
            let filter = Wanted::Years(years.clone());
            let of = catalog.select(&[filter.condition(&catalog)]).unwrap();
            let (all, member) = (0..rows as u32, |row: &u32| {
                items.years[*row as usize]
                    .is_some_and(|y| y < values && years.binary_search(&y).is_ok())
            });
            assert_eq!(selected(&catalog, &of), all.filter(member).collect::<Vec<_>>(), "{values}");
        }
    }
}

#[test]
fn filtered_searches_find_what_the_definition_says() {
    let items = Items::random(4000, 6, 23);
    let catalog = items.in_memory();
    let query: Vec<f32> = uniforms(2, 0, 6).into_iter().map(|w| w - 0.5).collect();
    for filters in [
        vec![Wanted::Brands(vec![0])],
        vec![Wanted::Brands(vec![8]), Wanted::Prices(Some(20.0), None)],
        vec![Wanted::Prices(Some(30.0), Some(30.5))],
        vec![Wanted::Years((-200..-190).collect()), Wanted::Prices(None, Some(50.0))],
        vec![Wanted::Rows(vec![5, 4, 3, 3, 3999])],
        vec![Wanted::Brands(vec![77])],
        vec![Wanted::Rows(vec![])],
    ] {
        let conditions: Vec<_> = filters.iter().map(|f| f.condition(&catalog)).collect();
        let of = catalog.select(&conditions).unwrap();
        let allow = |row: usize| filters.iter().all(|filter| filter.meets(&items, row));
        for k in [1, 10, 300] {
            let mut expected = items.best(&query, 4000, allow);
            expected.truncate(k);
            assert_eq!(find(&catalog, &query, k, &of), expected, "{filters:?}");
        }
    }
}

#[test]
fn bounds_are_rounded_as_numbers_are() {
    let mut items = Items::random(100, 1, 24);
    items.prices[17] = 19.99;
    items.prices[18] = -0.0;
    let catalog = items.in_memory();
    let select = |low, high| {
        let condition = catalog.between(0, Some(low), Some(high)).unwrap();
        selected(&catalog, &catalog.select(&[condition]).unwrap())
    };
    assert!(select(19.99, 19.99).contains(&17));
    assert_eq!(select(0.0, 0.0), [18]);
    assert_eq!(select(-0.0, -0.0), [18]);
    for (low, high) in [(2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::NAN)] {
        assert!(catalog.between(0, Some(low), Some(high)).is_err());
    }
}

#[test]
fn columns_are_called_by_name_and_kind() {
    let catalog = Items::random(100, 1, 25).in_memory();
    assert_eq!(catalog.column("price", true).unwrap(), 0);
    assert_eq!(catalog.column("year", false).unwrap(), 2);
    for (name, numbers) in [("price", false), ("brand", true), ("colour", false)] {
        let error = catalog.column(name, numbers).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    assert!(catalog.any_of(1, &[Value::Integer(4)]).is_err());
    assert!(catalog.any_of(2, &[Value::Text("4")]).is_err());
}
