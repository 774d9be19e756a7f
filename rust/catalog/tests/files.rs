//! Building, opening, reading back.

use super::*;

#[test]
fn everything_comes_back_by_row() {
    for (rows, dimensions) in [(1, 1), (2, 5), (700, 27), (5000, 3)] {
        let items = Items::random(rows, dimensions, 1);
        let catalog = items.in_memory();
        assert_eq!((catalog.rows(), catalog.dimensions()), (rows as u64, dimensions));
        let all: Vec<u32> = (0..rows as u32).collect();
        let mut attributes = Vec::new();
        catalog.attributes(&all, &mut attributes).unwrap();
        assert_eq!(attributes, items.attributes);
        let prices = catalog.numbers(0, &all).unwrap();
        let bits = |all: &[f32]| all.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&prices), bits(&items.prices));
        for (column, row) in [1, 2].into_iter().flat_map(|c| all.iter().map(move |row| (c, row))) {
            let code = catalog.categories(column, &[*row]).unwrap()[0];
            let value = (code != u32::MAX).then(|| catalog.category(column, code).unwrap());
            let expected = match column {
                1 => items.brands[*row as usize].as_deref().map(Value::Text),
                _ => items.years[*row as usize].map(Value::Integer),
            };
            assert_eq!(value, expected);
        }
        let Some(IdCells::Integers(ids)) = &items.ids else { unreachable!() };
        let found = catalog.find("ids", ids.iter().map(|id| Id::Integer(*id)), &|| Ok(())).unwrap();
        assert_eq!(found, all);
        catalog.verify(&Watch::NONE).unwrap();
    }
}

#[test]
fn the_bytes_depend_on_the_rows_alone() {
    let folder = Folder::new("bytes");
    let items = Items::random(3000, 7, 2);
    let whole = items.in_memory();
    for (name, pieces, scratch, threads) in
        [("a", 1, true, 2), ("b", 999, false, 1), ("c", 3000, true, 3)]
    {
        let path = folder.path(name);
        let options =
            Options { path: Some(path.clone()), overwrite: false, threads: Some(threads) };
        let built = items.build(&options, pieces, scratch).unwrap();
        assert_eq!(built.digest(), whole.digest());
        assert_eq!(std::fs::read(&path).unwrap(), whole.bytes().unwrap());
        assert_eq!(built.path(), Some(&*path));
    }
    assert_eq!(folder.names().len(), 3);
    let mut other = items.clone();
    other.attributes[20_999] += 1.0;
    assert_ne!(other.in_memory().digest(), whole.digest());
}

#[test]
fn texts_and_row_numbers_serve_as_ids() {
    let mut items = Items::random(900, 4, 3);
    let names: Vec<String> = (0..900).map(|row| "ä".repeat(row % 7) + &row.to_string()).collect();
    items.ids = Some(IdCells::Texts(StringArray::from_iter_values(&names)));
    let catalog = items.in_memory();
    let texts = || names.iter().map(|name| Id::Text(name.as_bytes()));
    assert_eq!(catalog.find("ids", texts(), &|| Ok(())).unwrap(), (0..900).collect::<Vec<_>>());
    assert!(texts().enumerate().all(|(row, id)| catalog.ids().get(row as u32) == Some(id)));
    assert_eq!(catalog.ids().get(900), None);
    for unknown in ["", "900", "ä", "\u{0}0"] {
        let error =
            catalog.find("candidates", [Id::Text(unknown.as_bytes())], &|| Ok(())).unwrap_err();
        assert!(error.to_string().contains("candidates: expected ids of the catalogue"), "{error}");
    }
    items.ids = None;
    let catalog = items.in_memory();
    assert_eq!(catalog.find("ids", [Id::Integer(899)], &|| Ok(())).unwrap(), [899]);
    assert!(catalog.find("ids", [Id::Integer(900)], &|| Ok(())).is_err());
    assert!(catalog.find("ids", [Id::Text(b"1")], &|| Ok(())).is_err());
}

#[test]
fn bad_rows_are_refused_by_name() {
    let refused = |change: &dyn Fn(&mut Items), scratch: bool| {
        let mut items = Items::random(50, 3, 4);
        change(&mut items);
        items.build(&Options::default(), 20, scratch).unwrap_err().to_string()
    };
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let message = refused(&|items| items.attributes[47 * 3 + 1] = value, true);
        let expected =
            format!("attributes: expected finite numbers, got {value} in row 47, column 1");
        assert_eq!(message, expected);
    }
    let message = refused(&|items| items.prices[33] = f32::INFINITY, false);
    assert!(message.contains("inf in row 33"), "{message}");
    let twice = |items: &mut Items| {
        let Some(IdCells::Integers(ids)) = &mut items.ids else { unreachable!() };
        ids[41] = ids[9];
    };
    assert!(refused(&twice, false).contains("in rows 9 and 41"));
    let large = |items: &mut Items| {
        let Some(IdCells::Integers(ids)) = &mut items.ids else { unreachable!() };
        ids[41] = u64::MAX;
    };
    assert!(refused(&large, false).contains("in row 41"));
    let empty = |items: &mut Items| {
        let ids = (0..50).map(|row| if row == 30 { String::new() } else { row.to_string() });
        items.ids = Some(IdCells::Texts(StringArray::from_iter_values(ids)));
    };
    assert!(refused(&empty, true).contains("none in row 30"));
    assert!(Items::random(0, 3, 1).build(&Options::default(), 1, true).is_err());
    assert!(Builder::new(&Options::default(), Items::random(1, 513, 1).shape(), true).is_err());
}

#[test]
fn a_failed_build_leaves_nothing() {
    let folder = Folder::new("failed");
    let path = folder.path("items.vtbcat");
    let mut items = Items::random(5000, 3, 5);
    items.attributes[14_999] = f32::NAN;
    let options = Options { path: Some(path.clone()), ..Options::default() };
    items.build(&options, 100, true).unwrap_err();
    items.attributes[14_999] = 0.0;
    let stop = Watch { interrupt: &|| Ok(()), progress: &|_, _, _| {} };
    for stage in ["learning clusters", "sorting rows by cluster", "encoding", "writing columns"] {
        let reached = std::cell::Cell::new(false);
        let watch = Watch {
            progress: &|now, _, _| reached.set(reached.get() || now == stage),
            interrupt: &|| if reached.get() { Err(Error::Interrupted) } else { Ok(()) },
        };
        let mut builder = Builder::new(&options, items.shape(), true).unwrap();
        builder.push(items.piece(0..5000)).unwrap();
        assert!(matches!(builder.finish(&watch), Err(Error::Interrupted)), "{stage}");
        assert_eq!(folder.names(), Vec::<String>::new());
    }
    let mut builder = Builder::new(&options, items.shape(), true).unwrap();
    builder.push(items.piece(0..5000)).unwrap();
    // While it is built nobody else may, and its name is free until it is complete.
    assert!(Builder::new(&options, items.shape(), true).is_err());
    assert!(!path.exists());
    builder.finish(&stop).unwrap();
    assert_eq!(folder.names(), ["items.vtbcat"]);
    let error = Builder::new(&options, items.shape(), true).err().unwrap();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    // What a killed build left is built over.
    std::fs::write(folder.path("items.vtbcat.partial"), b"half").unwrap();
    let again = Options { overwrite: true, ..options };
    items.build(&again, 100, true).unwrap();
    assert_eq!(folder.names(), ["items.vtbcat"]);
}

#[test]
fn searches_find_what_the_definition_says() {
    let items = Items::random(2500, 27, 6);
    let catalog = items.in_memory();
    let queries: Vec<f32> = uniforms(9, 0, 27 * 5).into_iter().map(|w| w - 0.5).collect();
    let expected: Vec<_> =
        queries.chunks(27).flat_map(|query| items.best(query, 20, |_| true)).collect();
    assert_eq!(find(&catalog, &queries, 20, &Selection::All), expected);
    // A query's own selection.
    let lists: Vec<_> = (0..5).map(|q| (q * 100..q * 100 + 30).collect::<Vec<u32>>()).collect();
    let ends: Vec<_> = (1..=5).map(|query| 30 * query).collect();
    let (joined, own) = (lists.concat(), [Condition::Rows((0..450).collect())]);
    for (threads, conditions) in [(1, &own[..0]), (3, &own[..0]), (1, &own[..]), (3, &own[..])] {
        let (mut rows, mut scores) = (vec![0; 200], vec![0.0; 200]);
        let (threads, go) = (Some(threads), || Ok(()));
        let own = Own { lists: &joined, ends: &ends, conditions };
        catalog.search_own(&queries, 40, own, threads, &go, &mut rows, &mut scores).unwrap();
        let lists = lists.iter().map(|list| match conditions {
            [] => list.clone(),
            _ => list.iter().copied().filter(|row| *row < 450).collect(),
        });
        let expected: Vec<_> = queries
            .chunks(27)
            .zip(lists)
            .flat_map(|(query, list)| items.best(query, 40, |row| list.contains(&(row as u32))))
            .collect();
        assert_eq!(rows.into_iter().zip(scores).collect::<Vec<_>>(), expected);
    }
}

#[cfg(unix)]
#[test]
fn scratch_files_leave_what_others_put_there_alone() {
    let (folder, items) = (Folder::new("scratch"), Items::random(300, 3, 8));
    // What a user may have called so, and a link that leads elsewhere.
    let names = ["items.vtbcat.partial.partial", "elsewhere"];
    names.iter().for_each(|name| std::fs::write(folder.path(name), b"mine").unwrap());
    let linked = folder.path("items.vtbcat.partial");
    let path = Some(folder.path("items.vtbcat"));
    items.build(&Options { path, overwrite: false, threads: None }, 100, true).unwrap();
    assert!(!linked.exists());
    for name in names {
        assert_eq!(std::fs::read(folder.path(name)).unwrap(), b"mine");
    }
    // A link under the name of the file that is built is refused: it is not followed and emptied.
    std::os::unix::fs::symlink(folder.path("elsewhere"), &linked).unwrap();
    let path = Some(folder.path("items.vtbcat"));
    assert!(items.build(&Options { path, overwrite: true, threads: None }, 100, true).is_err());
    assert_eq!(std::fs::read(folder.path("elsewhere")).unwrap(), b"mine");
}

#[test]
fn long_work_on_own_lists_can_be_interrupted() {
    let items = Items::random(1000, 256, 8);
    let catalog = items.in_memory();
    let few = uniforms(9, 0, 256 * 64);
    let all = [Condition::Rows((0..999).collect())];
    for (threads, conditions) in [(1, &all[..0]), (3, &all[..0]), (1, &all[..]), (3, &all[..])] {
        // Twice as much until it takes long enough to be asked whether it goes on.
        let mut count = 2000;
        loop {
            let queries: Vec<f32> = few.iter().copied().cycle().take(256 * count).collect();
            let lists: Vec<u32> = (0..count).flat_map(|_| 0..1000).collect();
            let ends: Vec<_> = (1..=count).map(|query| 1000 * query).collect();
            let own = Own { lists: &lists, ends: &ends, conditions };
            let (mut rows, mut scores) = (vec![7777; count], vec![0.0; count]);
            let asked = std::cell::Cell::new(0);
            let stop = || {
                asked.set(asked.get() + 1);
                Err(Error::Interrupted)
            };
            let outcome =
                catalog.search_own(&queries, 1, own, Some(threads), &stop, &mut rows, &mut scores);
            if asked.get() == 0 && count < 64_000 {
                count *= 2;
                continue;
            }
            assert!(matches!(outcome, Err(Error::Interrupted)));
            assert_eq!(asked.get(), 1, "asked once and obeyed");
            assert_eq!(rows.last(), Some(&7777), "the last query was not answered");
            break;
        }
    }
}

#[test]
fn an_overflow_names_the_query_whoever_brings_the_rows() {
    let items = Items::random(300, 3, 7);
    let catalog = items.in_memory();
    let mut queries = uniforms(9, 0, 3 * 20);
    queries[3 * 12..][..3].fill(3e38);
    queries[3 * 15..][..3].fill(3e38);
    let lists: Vec<u32> = (0..20).flat_map(|_| 0..200).collect();
    let ends: Vec<_> = (1..=20).map(|query| 200 * query).collect();
    let some = [Condition::Rows((0..150).collect())];
    let (mut rows, mut scores) = (vec![0; 60], vec![0.0; 60]);
    for (threads, conditions) in [(1, &some[..0]), (3, &some[..0]), (1, &some[..]), (3, &some[..])]
    {
        let (own, go) = (Own { lists: &lists, ends: &ends, conditions }, || Ok(()));
        let threads = Some(threads);
        let each = catalog.search_own(&queries, 3, own, threads, &go, &mut rows, &mut scores);
        let of = catalog.select(conditions).unwrap();
        let shared = catalog.search(&queries, 3, &of, threads, &go, &mut rows, &mut scores);
        for error in [each, shared] {
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with("weights[12]: expected scores within"), "{error}");
        }
    }
}

#[test]
fn queries_are_checked() {
    let catalog = Items::random(50, 3, 7).in_memory();
    let search = |queries: &[f32], k: usize| {
        let (mut rows, mut scores) = (vec![0; 2 * k], vec![0.0; 2 * k]);
        catalog.search(queries, k, &Selection::All, None, &|| Ok(()), &mut rows, &mut scores)
    };
    let message = search(&[0.0, 1.0, 2.0, 3.0, f32::NAN, 5.0], 1).unwrap_err().to_string();
    assert_eq!(message, "weights: expected finite numbers, got NaN in row 1, column 1");
    assert!(search(&[0.0; 6], 0).is_err());
    assert!(search(&[f32::MAX; 6], 1).is_err());
}
