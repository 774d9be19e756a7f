//! Whatever the bytes of a catalogue are: an error or an answer, no crash, no endless work.
//!
//! Every input is read twice: as it is, and with checksums that fit, without which a mutation
//! would never get past the header. Inputs that start with a byte below 128 are taken as changes
//! to a small whole catalogue, since the fuzzer does not invent one by itself.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use virtualtb_fast::Result;
use virtualtb_fast::catalog::build::{Builder, Options, Piece, Shape, Watch};
use virtualtb_fast::catalog::build::{Cells, IdCells, Kinds};
use virtualtb_fast::catalog::{Catalog, Condition, Value, reseal};

/// A catalogue with every kind of section.
fn whole() -> &'static [u8] {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let shape = Shape {
            dimensions: 3,
            ids: Some(Kinds::Texts),
            numbers: vec!["price".into()],
            categories: vec![("brand".into(), Kinds::Texts), ("year".into(), Kinds::Integers)],
        };
        let mut builder = Builder::new(&Options::default(), shape, false).expect("a shape");
        let rows = 40;
        let attributes: Vec<f32> = (0..3 * rows).map(|at| (at * 37 % 101) as f32 - 50.0).collect();
        let names: Vec<String> = (0..rows).map(|row| format!("item {row}")).collect();
        let brands = (0..rows).map(|row| (row % 5 > 0).then(|| format!("brand {}", row % 5)));
        let piece = Piece {
            attributes: &attributes,
            ids: Some(IdCells::Texts(names.into())),
            numbers: vec![(0..rows).map(|row| row as f32).collect()],
            categories: vec![
                Cells::Texts(brands.collect()),
                Cells::Integers((0..rows as i64).map(|row| Some(row % 3)).collect()),
            ],
        };
        builder.push(piece).expect("rows");
        let built = builder.finish_with(&attributes, &Watch::NONE).expect("a catalogue");
        built.bytes().expect("in memory").to_vec()
    })
}

/// What a user does with a catalogue.
fn use_all(bytes: &[u8]) -> Result<()> {
    let catalog = Catalog::from_bytes(bytes)?;
    let rows: Vec<u32> = (0..catalog.rows().min(100) as u32).collect();
    let query = vec![0.5; catalog.dimensions()];
    let mut conditions = vec![Condition::Rows(rows.clone())];
    let columns: Vec<_> = catalog.header().columns.iter().map(|c| c.name.clone()).collect();
    for name in &columns {
        if let Ok(column) = catalog.column(name, true) {
            conditions.extend(catalog.between(column, Some(3.0), Some(30.0)));
            let _ = catalog.numbers(column, &rows);
        } else if let Ok(column) = catalog.column(name, false) {
            let wanted = [Value::Text("brand 1"), Value::Text("brand 4")];
            conditions.extend(catalog.any_of(column, &wanted));
            conditions.extend(catalog.any_of(column, &[Value::Integer(0), Value::Integer(2)]));
            let _ = catalog.categories(column, &rows);
        }
    }
    for conditions in conditions.chunks(1).chain([&conditions[..], &[]]) {
        let Ok(selection) = catalog.select(conditions) else { continue };
        let (mut found, mut scores) = ([0; 20], [0.0; 20]);
        let go = || Ok(());
        let _ = catalog.search(&query, 20, &selection, Some(1), &go, &mut found, &mut scores);
    }
    let ids = catalog.ids();
    let _ = catalog.find("ids", rows.iter().filter_map(|row| ids.get(*row)));
    let _ = catalog.attributes(&rows, &mut Vec::new());
    catalog.verify(&Watch::NONE)
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = match input.split_first() {
        Some((first, changes)) if *first < 128 => {
            let mut bytes = whole().to_vec();
            for change in changes.chunks_exact(6) {
                let at = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize;
                let (at, length) = (at % bytes.len(), usize::from(change[3]));
                let end = (at + length % 16 + 1).min(bytes.len());
                bytes[at..end].fill(change[4]);
                if change[5] == 255 {
                    bytes.truncate(at);
                    break;
                }
            }
            bytes
        }
        _ => input.to_vec(),
    };
    let _ = use_all(&bytes);
    reseal(&mut bytes);
    let _ = use_all(&bytes);
});
