use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::*;
use crate::testing;

/// A small log, as a rollout would have made it.
fn log(rows: usize) -> Log {
    let schema = testing::schema();
    let shape = Shape::from(&schema);
    let mut columns = Columns::default();
    columns.resize(rows, shape);
    for row in 0..rows {
        columns.session[row] = (row / 3) as i64;
        columns.page[row] = (row % 3) as i16;
        columns.clicks[row] = (row % 5) as u8;
        columns.outcome[row] = if row % 3 == 2 { LEAVE } else { TURN };
        columns.action[row * 5] = row as f32;
    }
    let pairs = [
        ("format", FORMAT.to_owned()),
        ("format_version", FORMAT_VERSION.to_owned()),
        ("schema", crate::tensor_file::json(&schema)),
        ("rows", rows.to_string()),
        ("complete", "true".to_owned()),
    ];
    columns.freeze(shape, pairs.map(|(key, value)| (key.to_owned(), value)).into())
}

fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("virtualtb-logs-{}-{name}.parquet", std::process::id()))
}

#[test]
fn arrow_shares_the_columns() {
    let log = log(30);
    let batch = log.to_arrow().unwrap();
    assert_eq!((batch.num_rows(), batch.num_columns()), (30, 11));
    let session = batch.column(0).to_data();
    assert_eq!(session.buffers()[0].as_ptr(), log.session.inner().as_ptr());
    assert_eq!(batch.column_by_name("value").unwrap().null_count(), 30);
    assert_eq!(batch.schema().metadata()["format"], FORMAT);
}

#[test]
fn freezing_and_thawing_copies_nothing() {
    let mut columns = Columns::default();
    columns.resize(10, Shape { fields: 3, action: 5, items: 0 });
    let before = columns.action.as_ptr();
    let columns = columns.freeze(Shape { fields: 3, action: 5, items: 0 }, Metadata::new()).thaw();
    assert_eq!((columns.action.as_ptr(), columns.len()), (before, 10));
}

#[test]
fn the_digest_is_of_rows_and_schema_alone() {
    let (whole, mut other) = (log(30), log(30));
    other.metadata.insert("seed".into(), "9".into());
    assert_eq!(whole.digest(&|| Ok(())).unwrap(), other.digest(&|| Ok(())).unwrap());
    let mut pieces = Digester::new(whole.shape, whole.metadata.get("schema"));
    for (first, rows) in [(0, 1), (1, 20), (21, 0), (21, 9)] {
        pieces.update(&whole.slice(first, rows));
    }
    assert_eq!(pieces.finish(), whole.digest(&|| Ok(())).unwrap());
    assert_ne!(log(29).digest(&|| Ok(())).unwrap(), whole.digest(&|| Ok(())).unwrap());
    let mut columns = log(30).thaw();
    columns.clicks[17] += 1;
    assert_ne!(
        columns.freeze(whole.shape, whole.metadata.clone()).digest(&|| Ok(())).unwrap(),
        whole.digest(&|| Ok(())).unwrap()
    );
}

#[test]
fn a_file_that_exists_stays_unless_it_may_be_replaced() {
    let path = temporary("exists");
    std::fs::write(&path, "mine").unwrap();
    let error = log(3).write(&path, false, &|| Ok(())).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    log(3).write(&path, true, &|| Ok(())).unwrap();
    assert_eq!(
        Log::read(&path, &|| Ok(())).unwrap().digest(&|| Ok(())).unwrap(),
        log(3).digest(&|| Ok(())).unwrap()
    );
    std::fs::remove_file(path).unwrap();
    let nowhere = std::env::temp_dir().join("virtualtb-no-such-folder/log.parquet");
    let error = log(3).write(&nowhere, false, &|| Ok(())).unwrap_err().to_string();
    assert!(error.contains("virtualtb-no-such-folder/log.parquet"), "{error}");
}

#[test]
fn damaged_files_are_refused() {
    let path = temporary("damaged");
    log(300).write(&path, false, &|| Ok(())).unwrap();
    let good = std::fs::read(&path).unwrap();
    let refuse = || {
        let error = Log::read(&path, &|| Ok(())).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error}");
    };
    // In place: a file that is written anew goes to the disk each time.
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut put = |at: usize, byte: u8| {
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[byte]).unwrap();
    };
    // 20,000 bits and more, spread over the whole file.
    let bits = (0..8 * good.len()).step_by(8 * good.len() / 20_000);
    assert!(bits.len() >= 20_000, "{}", bits.len());
    for bit in bits {
        put(bit / 8, good[bit / 8] ^ (1 << (bit % 8)));
        refuse();
        assert!(!matches!(check_file(&path, &|| Ok(())), Ok(true)), "bit {bit}");
        put(bit / 8, good[bit / 8]);
    }
    put(good.len(), b'x');
    refuse();
    for length in (0..good.len()).rev() {
        file.set_len(length as u64).unwrap();
        refuse();
    }
    std::fs::write(&path, &good).unwrap();
    assert_eq!(
        Log::read(&path, &|| Ok(())).unwrap().digest(&|| Ok(())).unwrap(),
        log(300).digest(&|| Ok(())).unwrap()
    );
    assert!(check_file(&path, &|| Ok(())).unwrap());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_copy_has_the_bytes_of_the_file() {
    let (path, copy) = (temporary("original"), temporary("copy"));
    log(300).write(&path, false, &|| Ok(())).unwrap();
    let read = Log::read(&path, &|| Ok(())).unwrap();
    assert!(!read.metadata.contains_key(checksum::KEY));
    read.write(&copy, false, &|| Ok(())).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&copy).unwrap());
    for path in [path, copy] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_text_that_looks_like_the_checksum_does_not_hide_it() {
    let path = temporary("disguise");
    let mut disguised = log(3);
    let text = "\u{18}\u{8}checksum\u{18}\u{8}12345678";
    disguised.metadata.insert("policy".into(), text.into());
    disguised.write(&path, false, &|| Ok(())).unwrap();
    assert_eq!(Log::read(&path, &|| Ok(())).unwrap().metadata["policy"], text);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == b"12345678").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = Log::read(&path, &|| Ok(())).unwrap_err().to_string();
    assert!(error.contains("expected a file of checksum"), "{error}");
    // One that fits the change: what is behind it is read.
    reseal(&mut bytes);
    std::fs::write(&path, &bytes).unwrap();
    assert_ne!(Log::read(&path, &|| Ok(())).unwrap().metadata["policy"], text);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn other_parquet_files_are_refused() {
    let path = temporary("other");
    let mut other = log(3);
    other.metadata.remove("format");
    other.write(&path, false, &|| Ok(())).unwrap();
    let error = Log::read(&path, &|| Ok(())).unwrap_err().to_string();
    assert!(error.contains("not a virtualtb_fast session log"), "{error}");
    let mut other = log(3);
    other.metadata.insert("format_version".into(), "2".into());
    other.write(&path, true, &|| Ok(())).unwrap();
    let error = Log::read(&path, &|| Ok(())).unwrap_err().to_string();
    assert!(error.contains("expected format_version \"1\", got \"2\""), "{error}");
    let mut other = log(3);
    let schema = other.metadata["schema"].replace("\"action\":5", "\"action\":6");
    other.metadata.insert("schema".into(), schema);
    other.write(&path, true, &|| Ok(())).unwrap();
    let error = Log::read(&path, &|| Ok(())).unwrap_err().to_string();
    assert!(error.contains("expected column action"), "{error}");
    std::fs::remove_file(path).unwrap();
}
