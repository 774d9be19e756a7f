//! Files that were stopped: whatever is cut off or changed, what goes on makes the same bytes, or
//! is refused.

use super::*;
use crate::logs::Columns;
use crate::logs::journal::journal;
use crate::testing;

const GROUPS: usize = 4;
const ROWS: usize = 12;

fn shape() -> Shape {
    Shape::from(&testing::schema())
}

/// A few rows of block `block`.
fn rows(block: usize) -> Log {
    let mut columns = Columns::default();
    columns.resize(ROWS, shape());
    for row in 0..ROWS {
        columns.session[row] = (block * ROWS + row) as i64;
        columns.clicks[row] = (row % 5) as u8;
        columns.action[row * 5] = (block * row) as f32;
    }
    columns.freeze(shape(), Metadata::new())
}

fn asked(seed: u64) -> Metadata {
    [("seed".to_owned(), seed.to_string()), ("policy".to_owned(), "random".to_owned())].into()
}

/// A folder of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("virtualtb-file-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> PathBuf {
        self.0.join("log.parquet")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn opening<'a>(path: &'a Path, asked: &'a Metadata) -> Opening<'a> {
    let asked = Some(asked);
    Opening { path, overwrite: false, shape: shape(), constant_actions: false, asked }
}

fn write(file: &mut FileWriter, blocks: std::ops::Range<usize>) {
    for block in blocks {
        let group = file.encoder().encode_log(&rows(block)).unwrap();
        file.append(group, Value::from(block)).unwrap();
    }
}

/// What a whole file holds, without waiting for the disk thousands of times.
fn closed(mut file: FileWriter) -> Vec<u8> {
    file.close(Metadata::new(), true).unwrap();
    std::fs::read(&file.partial).unwrap()
}

/// What a kill after `blocks` blocks leaves: the file and its journal.
fn killed(path: &Path, blocks: usize) -> [Vec<u8>; 2] {
    let asked = asked(3);
    let mut file = FileWriter::create(opening(path, &asked)).unwrap();
    write(&mut file, 0..blocks);
    drop(file);
    let left = [partial(path), journal(path)].map(|name| std::fs::read(name).unwrap());
    std::fs::remove_file(partial(path)).unwrap();
    std::fs::remove_file(journal(path)).unwrap();
    left
}

/// Puts back what a kill left, goes on, and says how much of it was used, with the whole file.
fn resumed(path: &Path, [data, lines]: [&[u8]; 2], asked: &Metadata) -> Result<(usize, Vec<u8>)> {
    std::fs::write(partial(path), data).unwrap();
    std::fs::write(journal(path), lines).unwrap();
    let (mut file, notes) = FileWriter::resume::<Value>(opening(path, asked), &|| Ok(()))?;
    let blocks = notes.len();
    assert_eq!(notes, (0..blocks).map(Value::from).collect::<Vec<_>>());
    write(&mut file, blocks..GROUPS);
    Ok((blocks, closed(file)))
}

fn undisturbed(path: &Path) -> Vec<u8> {
    let asked = asked(3);
    let mut file = FileWriter::create(opening(path, &asked)).unwrap();
    write(&mut file, 0..GROUPS);
    let bytes = closed(file);
    std::fs::remove_file(partial(path)).unwrap();
    std::fs::remove_file(journal(path)).unwrap();
    bytes
}

#[test]
fn any_cut_leads_to_the_same_bytes_or_is_refused() {
    let folder = Folder::new("cut");
    let path = folder.path();
    let want = undisturbed(&path);
    let [data, lines] = killed(&path, 3);
    let asked = asked(3);
    let mut used = [0; GROUPS];
    for length in 0..=data.len() {
        let (blocks, bytes) = resumed(&path, [&data[..length], &lines], &asked).unwrap();
        assert!(bytes == want, "{length}");
        used[blocks] += 1;
    }
    assert!(used[..3].iter().all(|count| *count > 100) && used[3] == 1, "{used:?}");
    let mut refused = 0;
    for length in 0..=lines.len() {
        match resumed(&path, [&data, &lines[..length]], &asked) {
            Ok((_, bytes)) => assert!(bytes == want, "{length}"),
            Err(error) => {
                assert!(matches!(error, Error::Format { .. }), "{error}");
                refused += 1;
            }
        }
    }
    // Without a whole header the rows are nobody's.
    let header = lines.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert_eq!(refused, header);
}

#[test]
fn any_change_leads_to_the_same_bytes_or_is_refused() {
    let folder = Folder::new("change");
    let path = folder.path();
    let want = undisturbed(&path);
    let [data, lines] = killed(&path, 3);
    let asked = asked(3);
    for at in 0..data.len() {
        let mut changed = data.clone();
        changed[at] ^= 1 << (at % 8);
        let (blocks, bytes) = resumed(&path, [&changed, &lines], &asked).unwrap();
        assert!(bytes == want && blocks < 3, "{at}");
    }
    let mut refused = 0;
    for at in 0..lines.len() {
        let mut changed = lines.clone();
        changed[at] ^= 1 << (at % 8);
        match resumed(&path, [&data, &changed], &asked) {
            // A line whose end is gone, or with a zero, is one that was never finished.
            Ok((_, bytes)) => assert!(bytes == want, "{at}"),
            Err(error) => {
                assert!(matches!(error, Error::Format { .. }), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused * 10 > lines.len() * 9, "{refused} of {}", lines.len());
}

#[test]
fn lines_cannot_be_left_out_swapped_or_taken_from_another_journal() {
    let folder = Folder::new("lines");
    let path = folder.path();
    let [data, lines] = killed(&path, 3);
    let all: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(all.len(), 4);
    for order in [&[0, 2, 3][..], &[0, 1, 3], &[0, 2, 1, 3], &[1, 2, 3], &[0, 1, 1], &[0, 0, 1]] {
        let lines: Vec<u8> = order.iter().flat_map(|line| all[*line]).copied().collect();
        let error = resumed(&path, [&data, &lines], &asked(3)).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error}");
    }
    // Zeros at the end are what a power cut leaves of a write.
    let torn = [&lines[..], &[0; 100]].concat();
    assert_eq!(resumed(&path, [&data, &torn], &asked(3)).unwrap().0, 3);
}

#[test]
fn something_else_is_refused_and_nothing_is_touched() {
    let folder = Folder::new("else");
    let path = folder.path();
    let [data, lines] = killed(&path, 3);
    let mut more = asked(3);
    more.insert("pages".into(), "7".into());
    for (other, says) in [
        (asked(4), "seed of a resumed rollout: expected 3 as in"),
        (more, "pages of a resumed rollout: expected none as in"),
        (Metadata::new(), "expected random as in"),
    ] {
        let error = resumed(&path, [&data, &lines], &other).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(std::fs::read(partial(&path)).unwrap(), data);
        assert_eq!(std::fs::read(journal(&path)).unwrap(), lines);
    }
}

#[test]
fn one_output_has_one_writer() {
    let folder = Folder::new("one");
    let (path, asked) = (folder.path(), asked(3));
    let mut first = FileWriter::create(opening(&path, &asked)).unwrap();
    write(&mut first, 0..1);
    let opening = Opening { overwrite: true, ..opening(&path, &asked) };
    let refusals = [
        FileWriter::create(opening).unwrap_err(),
        FileWriter::resume::<Value>(opening, &|| Ok(())).unwrap_err(),
        rows(0).write(&path, true, &|| Ok(())).unwrap_err(),
    ];
    for error in refusals {
        assert!(error.to_string().contains("expected an output that nobody writes"), "{error}");
    }
    write(&mut first, 1..GROUPS);
    first.finish(Metadata::new(), &|| Ok(())).unwrap();
    let left: Vec<_> =
        std::fs::read_dir(&folder.0).unwrap().map(|one| one.unwrap().path()).collect();
    assert_eq!(left, [path]);
}

#[test]
fn a_sync_that_fails_takes_back_what_it_did_not_cover() {
    let folder = Folder::new("sync");
    let (path, asked) = (folder.path(), asked(3));
    let want = undisturbed(&path);
    let mut file = FileWriter::create(opening(&path, &asked)).unwrap();
    write(&mut file, 0..2);
    let source = io::Error::from_raw_os_error(5);
    let error = file.cut_back(Unsynced { synced: 1, source });
    assert!(matches!(error, Error::Io { .. }), "{error}");
    file.abandon(Metadata::new());
    assert!(Log::read(&partial(&path), &|| Ok(())).is_err());
    let (mut file, notes) =
        FileWriter::resume::<Value>(opening(&path, &asked), &|| Ok(())).unwrap();
    assert_eq!(notes.len(), 1);
    write(&mut file, 1..GROUPS);
    assert!(closed(file) == want);
}

#[test]
fn what_cannot_be_resumed_is_not_wiped() {
    let folder = Folder::new("wiped");
    let (path, asked) = (folder.path(), asked(3));
    std::fs::write(partial(&path), "mine, I think").unwrap();
    let error = FileWriter::resume::<Value>(opening(&path, &asked), &|| Ok(())).unwrap_err();
    assert!(error.to_string().contains("journal"), "{error}");
    let error = FileWriter::create(opening(&path, &asked)).unwrap_err();
    assert!(error.to_string().contains("resume=True"), "{error}");
    assert_eq!(std::fs::read(partial(&path)).unwrap(), b"mine, I think");
    assert!(!journal(&path).exists());
    let opening = Opening { overwrite: true, ..opening(&path, &asked) };
    let file = FileWriter::create(opening).unwrap();
    assert!(journal(&path).exists());
    drop(file);
}

#[test]
fn a_note_that_is_none_leaves_everything_as_it_is() {
    let folder = Folder::new("note");
    let (path, asked) = (folder.path(), asked(3));
    let left = killed(&path, 2);
    std::fs::write(partial(&path), &left[0]).unwrap();
    std::fs::write(journal(&path), &left[1]).unwrap();
    let resume = FileWriter::resume::<[String; 3]>;
    let error = resume(opening(&path, &asked), &|| Ok(())).unwrap_err().to_string();
    assert!(error.contains("expected a block's counts"), "{error}");
    assert!(error.contains(&journal(&path).display().to_string()), "{error}");
    assert!(std::fs::read(partial(&path)).unwrap() == left[0]);
    assert!(std::fs::read(journal(&path)).unwrap() == left[1]);
    // The void guard: notes that are notes let it be cut, and written to.
    let (file, notes) = FileWriter::resume::<Value>(opening(&path, &asked), &|| Ok(())).unwrap();
    assert_eq!(notes, [Value::from(0), Value::from(1)]);
    drop(file);
}
