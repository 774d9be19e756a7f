//! Catalogues of Arrow batches and Parquet files.

use arrow_array::builder::{FixedSizeListBuilder, Float32Builder, LargeListBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Float64Array, LargeStringArray, RecordBatch, RecordBatchIterator,
    StringViewArray, UInt64Array,
};
use parquet::arrow::ArrowWriter;

use super::super::source::{Columns, from_batches, from_parquet};
use super::*;

fn attributes(items: &Items, range: Range<usize>) -> ArrayRef {
    let d = items.dimensions;
    let mut list = FixedSizeListBuilder::new(Float32Builder::new(), d as i32);
    for row in range {
        list.values().append_slice(&items.attributes[row * d..][..d]);
        list.append(true);
    }
    Arc::new(list.finish())
}

fn batch(items: &Items, range: Range<usize>) -> RecordBatch {
    let Some(IdCells::Integers(ids)) = &items.ids else { unreachable!() };
    let prices = items.prices[range.clone()].iter().map(|p| (!p.is_nan()).then(|| f64::from(*p)));
    let brands: DictionaryArray<Int32Type> =
        items.brands[range.clone()].iter().map(Option::as_deref).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("x", attributes(items, range.clone()), false),
        ("item", Arc::new(UInt64Array::from(ids[range.clone()].to_vec())) as ArrayRef, false),
        ("cost", Arc::new(Float64Array::from_iter(prices)), true),
        ("maker", Arc::new(brands), true),
        ("year", Arc::new(Int64Array::from_iter(items.years[range].iter().copied())), true),
    ])
    .unwrap()
}

fn columns() -> Columns {
    Columns {
        attributes: Vec::new(),
        ids: Some("item".into()),
        numbers: vec![("price".into(), "cost".into())],
        categories: vec![("brand".into(), "maker".into()), ("year".into(), "year".into())],
    }
}

fn stream(items: &Items, batches: Vec<RecordBatch>, columns: &Columns) -> Result<Catalog> {
    let _ = items;
    let schema = batches[0].schema();
    let reader = RecordBatchIterator::new(batches.into_iter().map(Ok), schema);
    from_batches(reader, "stream", columns, 0, &Options::default(), &Watch::NONE)
}

#[test]
fn tables_give_the_same_bytes_as_arrays() {
    let items = Items::random(2000, 6, 31);
    let whole = items.in_memory();
    let batches = vec![batch(&items, 0..1), batch(&items, 1..1), batch(&items, 1..2000)];
    assert_eq!(stream(&items, batches, &columns()).unwrap().digest(), whole.digest());
    let sliced = batch(&items, 0..2000).slice(0, 700);
    let rest = batch(&items, 0..2000).slice(700, 1300);
    assert_eq!(stream(&items, vec![sliced, rest], &columns()).unwrap().digest(), whole.digest());

    let (folder, all) = (Folder::new("parquet"), batch(&items, 0..2000));
    let path = folder.path("items.parquet");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, all.schema(), None).unwrap();
    writer.write(&all).unwrap();
    writer.close().unwrap();
    let options = Options { path: Some(folder.path("items.vtbcat")), ..Options::default() };
    let built = from_parquet(&path, &columns(), &options, &Watch::NONE).unwrap();
    assert_eq!(built.digest(), whole.digest());
    let damaged = std::fs::read(&path).unwrap();
    std::fs::write(&path, &damaged[..damaged.len() / 2]).unwrap();
    let options = Options { overwrite: true, ..options };
    let cut = from_parquet(&path, &columns(), &options, &Watch::NONE);
    assert!(matches!(cut, Err(Error::Format { .. })));
}

#[test]
fn attributes_may_be_lists_or_columns() {
    let mut items = Items::random(500, 2, 32);
    items.ids = None;
    let numbers = |d: usize| {
        let column = items.attributes.iter().skip(d).step_by(2);
        Arc::new(Float64Array::from_iter_values(column.map(|x| f64::from(*x)))) as ArrayRef
    };
    let flat = RecordBatch::try_from_iter([("a", numbers(0)), ("b", numbers(1))]).unwrap();
    let mut list = LargeListBuilder::new(Float32Builder::new());
    for row in items.attributes.chunks(2) {
        list.values().append_slice(row);
        list.append(true);
    }
    let lists = RecordBatch::try_from_iter([("x", Arc::new(list.finish()) as ArrayRef)]).unwrap();
    let some = Columns { attributes: vec!["a".into(), "b".into()], ..Columns::default() };
    let first = stream(&items, vec![flat.clone()], &some).unwrap();
    for (batch, columns) in [(flat, Columns::default()), (lists.slice(0, 500), Columns::default())]
    {
        assert_eq!(stream(&items, vec![batch], &columns).unwrap().digest(), first.digest());
    }
    let mut read = Vec::new();
    first.attributes(&(0..500).collect::<Vec<_>>(), &mut read).unwrap();
    assert_eq!(read, items.attributes);
}

#[test]
fn texts_come_in_several_forms() {
    let mut items = Items::random(300, 2, 33);
    let names: Vec<String> = (0..300).map(|row| format!("item {row}")).collect();
    items.ids = Some(IdCells::Texts(StringArray::from_iter_values(&names)));
    let whole = items.in_memory();
    let forms: [fn(&[String]) -> ArrayRef; 3] = [
        |names| Arc::new(StringArray::from_iter_values(names)),
        |names| Arc::new(LargeStringArray::from_iter_values(names)),
        |names| Arc::new(StringViewArray::from_iter_values(names)),
    ];
    let numbered = Items { ids: Some(IdCells::Integers((0..300).collect())), ..items.clone() };
    for form in forms {
        let rows = batch(&numbered, 0..300);
        let mut arrays = rows.columns().to_vec();
        arrays[1] = form(&names);
        let names = ["x", "item", "cost", "maker", "year"].into_iter();
        let rows = RecordBatch::try_from_iter_with_nullable(
            names.zip(arrays).map(|(name, array)| (name, array, true)),
        )
        .unwrap();
        assert_eq!(stream(&items, vec![rows], &columns()).unwrap().digest(), whole.digest());
    }
}

#[test]
fn bad_tables_are_refused_by_name() {
    let items = Items::random(40, 2, 34);
    let refused = |columns: Columns| {
        let error = stream(&items, vec![batch(&items, 0..40)], &columns).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(Columns { ids: Some("nobody".into()), ..columns() }).contains("nobody"));
    assert!(refused(Columns { ids: Some("cost".into()), ..columns() }).contains("cost"));
    let texts = vec![("price".into(), "maker".into())];
    assert!(refused(Columns { numbers: texts, ..columns() }).contains("maker"));
    let wide = Columns { attributes: vec!["maker".into()], ..columns() };
    assert!(refused(wide).contains("maker"));
    let twice = vec![("price".into(), "cost".into()), ("price".into(), "cost".into())];
    assert!(refused(Columns { numbers: twice, ..columns() }).contains("twice"));
    let nulls = Columns { ids: Some("year".into()), ..columns() };
    assert!(refused(nulls).contains("null"));
    let mixed = Columns { attributes: vec!["x".into(), "cost".into()], ..columns() };
    assert!(refused(mixed).contains("one column of lists"));

    let mut bad = items.clone();
    bad.attributes[2 * 30] = f32::INFINITY;
    let batches = vec![batch(&bad, 0..20), batch(&bad, 20..40)];
    let message = stream(&bad, batches, &columns()).unwrap_err().to_string();
    assert!(message.contains("inf in row 30, column 0"), "{message}");
    let narrow = RecordBatch::try_from_iter([("x", attributes(&Items::random(5, 3, 1), 0..5))]);
    let ragged = vec![
        RecordBatch::try_from_iter([("x", attributes(&items, 0..40))]).unwrap(),
        narrow.unwrap(),
    ];
    assert!(stream(&items, ragged, &Columns::default()).is_err());
}
