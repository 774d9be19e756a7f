//! Mutated files of every kind that the core reads: a typed error or a value that works, no panic,
//! within a second of the processor, and in memory that the file's size bounds.
//!
//! Case n is the same everywhere and always. `cargo test --test files` reads 20,000 files;
//! `make fuzz` two million, some of them in Python (`readers.py`). In the environment:
//!
//! - `VIRTUALTB_FUZZ_FILES`: how many; `VIRTUALTB_FUZZ_FIRST`: the first case's number
//! - `VIRTUALTB_FUZZ_THREADS`: at work side by side; by default 2
//! - `VIRTUALTB_FUZZ_JSON`: a file for the result; `VIRTUALTB_FUZZ_REASONS`: show all reasons
//! - `VIRTUALTB_FUZZ_KEEP`: a folder for the files that readers failed on
//!
//! # Memory
//! Peak of what reading allocates, from opening the file on: at most twice the file and [`SLACK`],
//! refused or taken. For a log besides 2.5 times what its rows take when they are decoded (a column
//! grows by doubling): a few bytes of Parquet may stand for many rows, of which a reader takes at
//! most [`virtualtb_fast::logs::MOST_ROWS_A_BYTE`] for each byte of the file.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use virtualtb_fast::Error;
use virtualtb_fast::catalog::Catalog;
use virtualtb_fast::logs::{Log, MOST_ROWS_A_BYTE};
use virtualtb_fast::policy::Policy;
use virtualtb_fast::simulator::Simulator;

#[path = "mutate.rs"]
mod mutate;
#[path = "readers.rs"]
mod readers;

use mutate::{Draw, Kind, mutate};

/// Bytes that reading may take whatever the file: parsers, messages, a batch of a log's decoder.
const SLACK: usize = 1 << 18;
/// A single allocation beyond this is no file's of these sizes.
const GIANT: usize = 1 << 30;
const LIMIT: Duration = Duration::from_secs(1);
/// Files from which on the limit holds by the clock too, where nobody tells the processor's time.
const LONG: u64 = 1_000_000;
/// How messages about checksums that do not fit begin.
const SEALS: [&str; 3] = [" of digest", " of checksum", "expected SHA-"];
/// Of twenty cases, how many are of each kind.
const SHARES: [(Kind, u64); 4] =
    [(Kind::Simulator, 8), (Kind::Policy, 6), (Kind::Log, 4), (Kind::Catalog, 2)];

/// Counts the bytes that this thread holds.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static CASE: Cell<u64> = const { Cell::new(u64::MAX) };
}

fn count(bytes: isize) {
    // A thread that ends has no counters any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
    if bytes > GIANT as isize {
        let case = CASE.try_with(Cell::get).unwrap_or(u64::MAX);
        eprintln!("case {case}: an allocation of {bytes} bytes");
        std::process::abort();
    }
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that some work held beyond what there was before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let out = work();
    (out, (PEAK.get() - before) as usize)
}

/// Whole files by kind.
struct Corpus(Vec<(Kind, Vec<Vec<u8>>)>);

impl Corpus {
    fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        let load = |kind: Kind| {
            let entries = fs::read_dir(folder.join(kind.name())).expect("the corpus is committed");
            let mut paths: Vec<_> = entries.map(|entry| entry.expect("listed").path()).collect();
            paths.sort();
            (kind, paths.iter().map(|path| fs::read(path).expect("readable")).collect())
        };
        let mut all: Vec<(Kind, Vec<Vec<u8>>)> = Kind::ALL.into_iter().map(load).collect();
        // One large file: with small ones, what memory grows with does not show.
        let embedded = "python/virtualtb_fast/data/virtualtb-v0-refit.safetensors";
        let embedded = Path::new(env!("CARGO_MANIFEST_DIR")).join(embedded);
        all[0].1.push(fs::read(embedded).expect("the embedded simulator"));
        Self(all)
    }

    fn of(&self, kind: Kind) -> &[Vec<u8>] {
        &self.0.iter().find(|(known, _)| *known == kind).expect("every kind").1
    }
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Used,
    /// Read, and refused when it was used.
    UsedUp,
    /// Refused, and why.
    Refused(String),
}

/// A message without what is of one file alone.
fn reason(error: &Error) -> String {
    let text = error.to_string();
    let text = text.split_once(": ").map_or(&*text, |(_, reason)| reason);
    let text = text.split_once(", got").map_or(text, |(expected, _)| expected);
    let seal = SEALS.iter().find_map(|seal| Some(text.find(seal)? + seal.len()));
    let text = seal.map_or(text, |end| &text[..end]);
    let mut out = String::new();
    // Digits are of one file; texts of a parser stay.
    for letter in text.chars().take(160) {
        let letter = if letter.is_ascii_digit() { '#' } else { letter };
        if letter != '#' || !out.ends_with('#') {
            out.push(letter);
        }
    }
    out
}

/// Reads files of one thread.
struct Reader {
    simulator: Arc<Simulator>,
    path: PathBuf,
    file: fs::File,
}

impl Reader {
    fn new(corpus: &Corpus, thread: usize) -> Self {
        let simulator = corpus.of(Kind::Simulator)[0].as_slice();
        let simulator = Simulator::from_bytes(simulator, "corpus").expect("a whole file");
        let name = format!("mutated-{}-{thread}.parquet", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let file = fs::File::create(&path).expect("a temporary file");
        Self { simulator, path, file }
    }

    /// The path of a file of these bytes; always the same file, since a new one goes to the disk.
    fn put(&mut self, bytes: &[u8]) -> &Path {
        self.file.set_len(bytes.len() as u64).expect("room for a small file");
        self.file.seek(SeekFrom::Start(0)).expect("a file");
        self.file.write_all(bytes).expect("room for a small file");
        &self.path
    }

    /// Reads, measures and uses a file; says what is wrong with the reader, if anything.
    fn read(&mut self, kind: Kind, bytes: &[u8]) -> Result<(Fate, isize), String> {
        let length = bytes.len();
        match kind {
            Kind::Simulator => {
                let read = peak_of(|| Simulator::load(self.put(bytes)));
                judge(read, length, 0, readers::play)
            }
            Kind::Policy => {
                let read = peak_of(|| Policy::load(self.put(bytes)));
                judge(read, length, 0, |policy| readers::follow(&self.simulator, &policy))
            }
            Kind::Catalog => {
                // Its copy of the bytes is mapped memory, which the allocator does not see.
                let (read, peak) = peak_of(|| Catalog::from_bytes(bytes));
                judge((read, peak + length), length, 0, |catalog| readers::search(&catalog))
            }
            Kind::Log => {
                let (read, peak) = peak_of(|| Log::read(self.put(bytes), &|| Ok(())));
                let rows = read.as_ref().map_or(0, Log::len);
                if rows > MOST_ROWS_A_BYTE as usize * length {
                    return Err(format!("{rows} rows of {length} bytes"));
                }
                // Of a refused one nobody knows how much was decoded before.
                let decoded = match &read {
                    Ok(log) => 5 * decoded(log) / 2,
                    Err(_) => 4 << 20,
                };
                judge((read, peak), length, decoded, |log| readers::look(&self.path, &log))
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn decoded(log: &Log) -> usize {
    let row = 25 + log.shape.fields + 4 * log.shape.action + 8 + 4 * log.shape.items;
    row * log.len()
}

fn judge<T>(
    (read, peak): (Result<T, Error>, usize),
    length: usize,
    decoded: usize,
    work: impl FnOnce(T) -> Result<(), Error>,
) -> Result<(Fate, isize), String> {
    if peak > 2 * length + decoded + SLACK {
        let got = if read.is_ok() { "taken" } else { "refused" };
        return Err(format!("{peak} bytes held for a file of {length} that was {got}"));
    }
    let beyond = peak as isize - (2 * length + decoded) as isize;
    match read {
        Ok(value) => match work(value) {
            Ok(()) => Ok((Fate::Used, beyond)),
            Err(Error::Format { .. } | Error::Argument { .. }) => Ok((Fate::UsedUp, beyond)),
            Err(error) => Err(format!("an error of another type in use: {error:?}")),
        },
        Err(error @ Error::Format { .. }) => Ok((Fate::Refused(reason(&error)), beyond)),
        Err(error) => Err(format!("an error of another type: {error:?}")),
    }
}

/// What was seen of one kind.
#[derive(Default)]
struct Tally {
    files: u64,
    bytes: u64,
    work: u64,
    refused_in_use: u64,
    refused: BTreeMap<String, u64>,
    slowest: Duration,
    /// Most memory beyond what the file's size allows.
    beyond: isize,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.work += other.work;
        self.refused_in_use += other.refused_in_use;
        for (reason, count) in other.refused {
            *self.refused.entry(reason).or_default() += count;
        }
        self.slowest = self.slowest.max(other.slowest);
        self.beyond = self.beyond.max(other.beyond);
        self.failures.extend(other.failures);
    }

    fn note(&mut self, outcome: Result<(Fate, isize), String>, case: u64, took: Duration) {
        self.files += 1;
        self.slowest = self.slowest.max(took);
        match outcome {
            Ok((fate, beyond)) => {
                self.beyond = self.beyond.max(beyond);
                match fate {
                    Fate::Used => self.work += 1,
                    Fate::UsedUp => self.refused_in_use += 1,
                    Fate::Refused(reason) => *self.refused.entry(reason).or_default() += 1,
                }
            }
            Err(failure) => self.failures.push(format!("case {case}: {failure}")),
        }
    }
}

/// The kind and the bytes of a case.
fn file_of(corpus: &Corpus, case: u64) -> (Kind, Vec<u8>) {
    let mut left = case % 20;
    let share = SHARES.iter().find(|(_, share)| {
        let mine = left < *share;
        left = left.saturating_sub(*share);
        mine
    });
    let kind = share.expect("twenty in all").0;
    let mut draw = Draw(case.wrapping_mul(0xD605_BBB5_8C8A_BBB5));
    let all = corpus.of(kind);
    // The large file is read now and then.
    let small = all.len() - usize::from(kind == Kind::Simulator && draw.below(100) > 0);
    let whole = draw.below(small);
    (kind, mutate(&mut draw, kind, &all[whole], all))
}

/// How long this thread was on a processor, where Linux tells.
fn worked() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Reads a case, twice if it seems slow. What counts is the processor's time, or else the clock's:
/// a machine may be busy with something else.
fn run(
    reader: &mut Reader,
    kind: Kind,
    bytes: &[u8],
    limit: Duration,
) -> (Result<(Fate, isize), String>, Duration) {
    let mut fastest = Duration::MAX;
    loop {
        let (began, before) = (Instant::now(), worked());
        let outcome = catch_unwind(AssertUnwindSafe(|| reader.read(kind, bytes)));
        let took = before.zip(worked()).map_or_else(|| began.elapsed(), |(from, to)| to - from);
        let outcome = outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
            Err(format!("a panic: {}", text.unwrap_or_default()))
        });
        if took < limit || fastest != Duration::MAX {
            let took = took.min(fastest);
            let slow = || Err(format!("{took:?} for {} bytes", bytes.len()));
            return (if took < limit { outcome } else { outcome.and_then(|_| slow()) }, took);
        }
        fastest = took;
    }
}

/// That each check can fail, and that whole files are read and work.
fn guards(corpus: &Corpus) {
    let ((), peak) = peak_of(|| drop(std::hint::black_box(vec![1_u8; 1 << 20])));
    assert!((1 << 20..2 << 20).contains(&peak), "{peak}");
    let mut reader = Reader::new(corpus, 1000);
    for (kind, files) in &corpus.0 {
        for (index, whole) in files.iter().enumerate() {
            let (outcome, _) = run(&mut reader, *kind, whole, Duration::MAX);
            assert!(matches!(outcome, Ok((Fate::Used, _))), "{kind:?} {index}: {outcome:?}");
            let mut same = whole.clone();
            kind.reseal(&mut same);
            assert!(same == *whole, "{kind:?} {index}: resealing changes a whole file");
        }
    }
    let (kind, files) = &corpus.0[0];
    let (slow, _) = run(&mut reader, *kind, &files[0], Duration::ZERO);
    assert!(slow.is_err(), "{slow:?}");
    let (before, began) = (worked(), Instant::now());
    while before.is_some() && worked() == before {
        assert!(began.elapsed() < 60 * LIMIT, "the processor's time stands still");
    }
    let greedy = judge((Ok(()), 10 * SLACK), 1000, 0, |()| Ok(()));
    assert!(greedy.is_err());
    let vague = judge::<()>((Err(Error::State("?".into())), 0), 1000, 0, |()| Ok(()));
    assert!(vague.is_err());
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

fn main() {
    let files = number("VIRTUALTB_FUZZ_FILES", 20_000);
    let first = number("VIRTUALTB_FUZZ_FIRST", 0);
    let threads = number("VIRTUALTB_FUZZ_THREADS", 2).max(1) as usize;
    let corpus = Corpus::load();
    // Decoders of Parquet may panic over damage behind a checksum that fits; readers catch it.
    std::panic::set_hook(Box::new(|_| ()));
    let limit = if files >= LONG || worked().is_some() { LIMIT } else { Duration::MAX };
    let keep = std::env::var_os("VIRTUALTB_FUZZ_KEEP").map(PathBuf::from);
    let (next, began) = (AtomicU64::new(first), Instant::now());
    let shown = AtomicU64::new(0);
    let work = |thread: usize| {
        let mut reader = Reader::new(&corpus, thread);
        let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            if case >= first + files {
                return tallies;
            }
            CASE.set(case);
            let (kind, bytes) = file_of(&corpus, case);
            let (outcome, took) = run(&mut reader, kind, &bytes, limit);
            if let (Some(folder), Err(_)) = (&keep, &outcome) {
                fs::write(folder.join(format!("{}-{case}", kind.name())), &bytes)
                    .expect("a folder to keep files in");
            }
            let tally = tallies.entry(kind.name()).or_default();
            tally.bytes += bytes.len() as u64;
            tally.note(outcome, case, took);
            let seconds = began.elapsed().as_secs() / 10;
            if files > 100_000 && shown.fetch_max(seconds, Ordering::Relaxed) < seconds {
                let done = case - first;
                eprintln!("{done} of {files} files, {:.0} s", began.elapsed().as_secs_f64());
            }
        }
    };
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| guards(&corpus)));
    if let Err(panic) = outcome {
        eprintln!("guards: {:?}", panic.downcast_ref::<String>());
        std::process::exit(1);
    }
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        for one in running {
            for (kind, tally) in one.join().expect("cases do not panic") {
                tallies.entry(kind).or_default().add(tally);
            }
        }
    });
    report(&tallies, first, began.elapsed());
}

fn report(tallies: &BTreeMap<&str, Tally>, first: u64, took: Duration) {
    let mut failed = false;
    let mut kinds = serde_json::Map::new();
    for (kind, tally) in tallies {
        let refused: u64 = tally.refused.values().sum();
        let sealed = |reason: &&String| SEALS.iter().any(|seal| reason.contains(seal));
        let by_checksum: u64 =
            tally.refused.keys().filter(sealed).map(|reason| tally.refused[reason]).sum();
        println!(
            "{kind}: {} files, {} work, {refused} refused for {} reasons ({by_checksum} by a \
             checksum), {} in use; slowest {:.1} ms, {} KiB beyond twice their size",
            tally.files,
            tally.work,
            tally.refused.len(),
            tally.refused_in_use,
            1e3 * tally.slowest.as_secs_f64(),
            tally.beyond / 1024
        );
        if std::env::var_os("VIRTUALTB_FUZZ_REASONS").is_some() {
            let mut reasons: Vec<_> = tally.refused.iter().collect();
            reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            reasons.iter().for_each(|(reason, count)| println!("  {count:8} {reason}"));
        }
        for failure in tally.failures.iter().take(10) {
            println!("  {failure}");
        }
        // A mutator that only breaks seals, or whose files are all taken, would show nothing.
        let few = tally.files / 100;
        let vain = tally.work < few || by_checksum < few || refused - by_checksum < few;
        let vain = tally.files >= 1000 && vain;
        if vain {
            println!("  expected at least {few} files of each fate");
        }
        failed |= vain || !tally.failures.is_empty();
        let about = serde_json::json!({
            "files": tally.files,
            "bytes": tally.bytes,
            "work": tally.work,
            "refused": refused,
            "refused_by_checksum": by_checksum,
            "refused_in_use": tally.refused_in_use,
            "reasons": tally.refused.len(),
            "failures": tally.failures,
            "slowest_ms": (1e4 * tally.slowest.as_secs_f64()).round() / 10.0,
            "bytes_beyond_bound_by_size": tally.beyond,
        });
        kinds.insert((*kind).into(), about);
    }
    if let Ok(path) = std::env::var("VIRTUALTB_FUZZ_JSON") {
        let result = serde_json::json!({
            "first_case": first,
            "seconds": took.as_secs_f64().round(),
            "kinds": kinds,
        });
        fs::write(path, format!("{result:#}\n")).expect("a file for the result");
    }
    if failed {
        std::process::exit(1);
    }
}
