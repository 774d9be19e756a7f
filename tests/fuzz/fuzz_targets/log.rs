//! Whatever the bytes of a session log are: an error or columns, no crash, no endless work.

#![no_main]
#![allow(dead_code, reason = "each target uses some of what they share")]

#[path = "../mutate.rs"]
mod mutate;
#[path = "../readers.rs"]
mod readers;

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use mutate::Kind;
use virtualtb_fast::logs::Log;

/// Logs are read from files. Panics of the decoder, which readers catch, are no findings.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    std::panic::set_hook(Box::new(|_| ()));
    std::env::temp_dir().join(format!("virtualtb-fuzzed-{}.parquet", std::process::id()))
});

fuzz_mutator!(|data: &mut [u8], size: usize, room: usize, seed: u32| {
    mutate::lead(Kind::Log, data, size, room, seed, fuzzer_mutate)
});

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*FILE, bytes).expect("room for a small file");
    if let Ok(log) = Log::read(&FILE, &|| Ok(())) {
        readers::look(&FILE, &log).expect("what was read can be looked at");
    }
});
