//! Files that are cut, altered, replaced or shortened.

use std::fs::OpenOptions;

use proptest::prelude::*;

use super::*;

fn small() -> (Items, Vec<u8>) {
    let items = Items::random(300, 5, 11);
    let bytes = items.in_memory().bytes().unwrap().to_vec();
    (items, bytes)
}

/// What a user does with a file, all of it; the answers.
fn use_all(bytes: &[u8]) -> Result<Vec<(u32, f32)>> {
    let catalog = Catalog::from_bytes(bytes)?;
    let brands = catalog.any_of(1, &[Value::Text("brand 1"), Value::Text("brand 4")])?;
    let years = catalog.any_of(2, &[Value::Integer(-200), Value::Integer(-199)])?;
    let prices = catalog.between(0, Some(15.0), Some(60.0))?;
    let mut found = Vec::new();
    for conditions in [&[brands][..], &[years], std::slice::from_ref(&prices)] {
        let selection = catalog.select(conditions)?;
        found.extend(listed(&catalog, &selection)?);
    }
    let all: Vec<u32> = (0..catalog.rows() as u32).collect();
    for condition in [catalog.any_of(1, &[Value::Text("brand 0")])?, prices] {
        let selection = catalog.select(&[condition, Condition::Rows(all.clone())])?;
        found.extend(listed(&catalog, &selection)?);
    }
    Ok(found)
}

fn listed(catalog: &Catalog, selection: &Selection) -> Result<Vec<(u32, f32)>> {
    let (mut rows, mut scores) = (vec![0; 300], vec![0.0; 300]);
    let query = vec![0.5; catalog.dimensions()];
    catalog.search(&query, 300, selection, Some(1), &|| Ok(()), &mut rows, &mut scores)?;
    catalog.attributes(
        &rows.iter().copied().filter(|row| *row != NO_ROW).collect::<Vec<_>>(),
        &mut scores,
    )?;
    let known = rows.iter().filter(|row| **row != NO_ROW);
    let _ = catalog.find("ids", known.filter_map(|row| catalog.ids().get(*row)), &|| Ok(()));
    Ok(rows.into_iter().zip(scores).collect())
}

fn sections(bytes: &[u8], kinds: &[Kind]) -> Vec<usize> {
    let (header, _) = Header::parse(bytes, "test").unwrap();
    let of_kind = header.sections.iter().filter(|section| kinds.contains(&section.kind));
    of_kind.flat_map(|s| s.offset as usize..(s.offset + s.bytes) as usize).collect()
}

#[test]
fn every_cut_is_refused() {
    let (_, bytes) = small();
    use_all(&bytes).unwrap();
    let pages = (0..bytes.len()).step_by(4096);
    for length in pages.chain(0..200).chain([bytes.len() - 1]) {
        assert!(matches!(Catalog::from_bytes(&bytes[..length]), Err(Error::Format { .. })));
    }
    // Every other one too; what opening does first.
    for length in 0..bytes.len() {
        assert!(matches!(Header::parse(&bytes[..length], "cut"), Err(Error::Format { .. })));
    }
    let mut long = bytes.clone();
    long.push(0);
    assert!(Catalog::from_bytes(&long).is_err());
    long.resize(bytes.len() + 4096, 0);
    assert!(Catalog::from_bytes(&long).is_err());
}

#[test]
fn every_flipped_bit_of_the_header_is_refused() {
    let (_, mut bytes) = small();
    let (header, _) = Header::parse(&bytes, "test").unwrap();
    for bit in 0..8 * header.sections[0].offset as usize {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(Header::parse(&bytes, "test"), Err(Error::Format { .. })), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    Header::parse(&bytes, "test").unwrap();
}

#[test]
fn every_flipped_bit_of_what_leads_to_items_is_refused_or_harmless() {
    let (_, mut bytes) = small();
    let expected = use_all(&bytes).unwrap();
    let lists =
        [Kind::Sorted, Kind::Lists, Kind::Sums, Kind::Starts, Kind::Values, Kind::ValueTexts];
    let places = sections(&bytes, &lists);
    assert!(places.len() > 4000);
    let mut refused = 0;
    for at in places {
        // One bit of each byte here; the deterministic mutations below flip others.
        let bit = 1 << (at % 8);
        bytes[at] ^= bit;
        match use_all(&bytes) {
            Ok(found) => assert_eq!(found, expected, "byte {at}"),
            Err(Error::Format { .. }) => refused += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
        let whole = Catalog::from_bytes(&bytes).unwrap().verify(&Watch::NONE);
        assert!(matches!(whole, Err(Error::Format { .. })), "byte {at}");
        bytes[at] ^= bit;
    }
    // Nothing was listed here but what the filters use.
    assert!(refused > 4000, "{refused}");
}

#[test]
fn every_part_of_the_file_is_under_a_checksum() {
    let (_, mut bytes) = small();
    let bits = (0..8 * bytes.len()).step_by(8 * bytes.len() / 20_000);
    assert!(bits.len() >= 20_000, "{}", bits.len());
    for bit in bits {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let verified = Catalog::from_bytes(&bytes).and_then(|all| all.verify(&Watch::NONE));
        assert!(matches!(verified, Err(Error::Format { .. })), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn damage_behind_checksums_that_fit_is_an_error_or_a_wrong_answer() {
    let (_, bytes) = small();
    let (header, _) = Header::parse(&bytes, "test").unwrap();
    let first = header.sections[0].offset as usize;
    let mut state = 5_u64;
    let mut draw = |below: usize| {
        state = ids::mix(state);
        (state % below as u64) as usize
    };
    let (mut fine, mut refused) = (0, 0);
    for _ in 0..1500 {
        let mut changed = bytes.clone();
        for _ in 0..=draw(4) {
            // One change in ten goes into the header.
            let at = if draw(10) == 0 { draw(first) } else { first + draw(bytes.len() - first) };
            let end = (at + 1 + draw(16)).min(bytes.len());
            let value = [0, 0xFF, 0x80, 1][draw(4)];
            changed[at..end].fill(value);
        }
        reseal(&mut changed);
        match use_all(&changed) {
            Ok(_) => fine += 1,
            Err(Error::Format { .. } | Error::Argument { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(fine > 100 && refused > 100, "{fine} fine, {refused} refused");
}

#[test]
fn lists_that_start_nowhere_are_refused_behind_checksums_that_fit() {
    // What the fuzzer found: lengths below zero.
    let (_, bytes) = small();
    let starts = sections(&bytes, &[Kind::Starts]);
    for value in [[0xFF; 8], [0; 8], 5000_u64.to_le_bytes()] {
        let mut changed = bytes.clone();
        for at in starts.iter().step_by(8) {
            changed[*at..at + 8].copy_from_slice(&value);
        }
        reseal(&mut changed);
        assert!(matches!(use_all(&changed), Err(Error::Format { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn headers_that_lie_are_refused(
        field in 0_usize..8, value in any::<u64>(), which in 0_usize..20
    ) {
        let (_, mut bytes) = small();
        let (mut header, _) = Header::parse(&bytes, "test").unwrap();
        let (length, first) = (bytes.len() as u64, header.sections[0].offset);
        let before = header.clone();
        let which = which % header.sections.len();
        match field {
            0 => header.rows = value,
            1 => header.dimensions = value as u32,
            2 => header.sections[which].offset = value,
            3 => header.sections[which].bytes = value,
            4 => header.sections[which].column = value as u32,
            5 => header.columns[which % 3].present = value,
            6 => header.columns[which % 3].kind = ColumnKind::Texts { values: value as u32 },
            _ => { header.sections.swap_remove(which); }
        }
        prop_assume!(header != before);
        bytes[..first as usize].copy_from_slice(&header.to_bytes(first, length));
        let refused = matches!(Catalog::from_bytes(&bytes), Err(Error::Format { .. }));
        prop_assert!(refused);
    }
}

#[test]
fn a_file_that_is_shortened_while_open_is_an_error() {
    let (folder, items) = (Folder::new("shortened"), Items::random(20_000, 9, 12));
    for length in [0, 4096, 50_000, 300_000] {
        let path = folder.path("items");
        let options = Options { path: Some(path.clone()), overwrite: true, threads: None };
        let catalog = items.build(&options, 5000, false).unwrap();
        let before = find(&catalog, &[1.0; 9], 10, &Selection::All);
        assert_eq!(before, items.best(&[1.0; 9], 20_000, |_| true)[..10]);
        // Bypasses the comparison of lengths: the mapping itself must stand it.
        let view = catalog.view();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        let sum: f64 = view.attributes.iter().map(|x| f64::from(*x)).sum();
        assert!(sum.is_finite());
        assert!(view.order.iter().all(|row| *row < 20_000));
        assert!(matches!(catalog.mapped.check_kept(), Err(Error::Format { .. })), "{length}");
        let (mut rows, mut scores) = ([0; 2], [0.0; 2]);
        let found =
            catalog.search(&[1.0; 9], 2, &Selection::All, None, &|| Ok(()), &mut rows, &mut scores);
        let error = found.unwrap_err().to_string();
        assert!(error.contains("bytes as when it was opened"), "{error}");
        // The other files go on.
        let other = folder.path("other");
        let options = Options { path: Some(other), overwrite: true, threads: None };
        assert_eq!(
            find(&items.build(&options, 500, true).unwrap(), &[1.0; 9], 10, &Selection::All),
            before
        );
    }
}

#[test]
fn a_category_of_a_file_that_is_shortened_is_an_error() {
    let (folder, items) = (Folder::new("category"), Items::random(3000, 9, 14));
    let path = folder.path("items");
    let options = Options { path: Some(path.clone()), overwrite: false, threads: None };
    let catalog = items.build(&options, 5000, false).unwrap();
    // Checksums are compared here and never again; both columns have a first category.
    let before = [1, 2].map(|column| catalog.category(column, 0).is_ok());
    assert_eq!(before, [true; 2]);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    for column in [1, 2] {
        let error = catalog.category(column, 0).unwrap_err().to_string();
        assert!(error.contains("bytes as when it was opened"), "{error}");
    }
}

#[test]
fn a_file_that_is_shortened_during_a_search_is_an_error() {
    let (folder, items) = (Folder::new("during"), Items::random(20_000, 9, 13));
    let path = folder.path("items");
    let options = Options { path: Some(path.clone()), overwrite: true, threads: None };
    let catalog = items.build(&options, 5000, false).unwrap();
    let queries: Vec<f32> = uniforms(1, 0, 9 * 3000).into_iter().map(|w| w - 0.5).collect();
    let (mut rows, mut scores) = (vec![0; 30_000], vec![0.0; 30_000]);
    let done = std::cell::Cell::new(false);
    let cut = || {
        done.set(true);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(8192).unwrap();
        Ok(())
    };
    let mut found = Ok(());
    // Until one search takes long enough to be asked whether it goes on.
    while !done.get() {
        found =
            catalog.search(&queries, 10, &Selection::All, Some(2), &cut, &mut rows, &mut scores);
    }
    let later = catalog.select(&[Condition::Rows(vec![1])]);
    assert!(found.is_err() || later.is_err());
    assert!(matches!(later, Err(Error::Format { .. })));
}

#[test]
fn a_file_that_is_replaced_while_open_is_an_error() {
    let (folder, items) = (Folder::new("replaced"), Items::random(500, 9, 14));
    let path = folder.path("items");
    let options = Options { path: Some(path.clone()), overwrite: true, threads: None };
    let old = items.build(&options, 5000, false).unwrap();
    old.check().unwrap();
    let new = items.build(&options, 5000, false).unwrap();
    let error = old.check().unwrap_err().to_string();
    assert!(error.contains("another of this name"), "{error}");
    new.check().unwrap();
    // Written to in place: same name, same length.
    let bytes = std::fs::read(&path).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(&path, &bytes).unwrap();
    let error = new.check().unwrap_err().to_string();
    assert!(error.contains("written to"), "{error}");
    // A deleted file is still whole.
    let last = Catalog::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    last.check().unwrap();
    last.verify(&Watch::NONE).unwrap();
}

#[test]
fn what_is_no_catalogue_is_refused() {
    let folder = Folder::new("none");
    assert!(matches!(Catalog::open(&folder.path("missing")), Err(Error::Io { .. })));
    assert!(matches!(Catalog::open(&folder.path("")), Err(Error::Format { .. })));
    for content in [&b""[..], b"VTBCAT", b"PAR1 and so on", &[0; 5000]] {
        let path = folder.path("file");
        std::fs::write(&path, content).unwrap();
        assert!(matches!(Catalog::open(&path), Err(Error::Format { .. })));
    }
}
