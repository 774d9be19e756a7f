//! Whatever the bytes of a catalogue are: an error or an answer, no crash, no endless work.

#![no_main]
#![allow(dead_code, reason = "each target uses some of what they share")]

#[path = "../mutate.rs"]
mod mutate;
#[path = "../readers.rs"]
mod readers;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use mutate::Kind;
use virtualtb_fast::catalog::Catalog;

fuzz_mutator!(|data: &mut [u8], size: usize, room: usize, seed: u32| {
    mutate::lead(Kind::Catalog, data, size, room, seed, fuzzer_mutate)
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(catalog) = Catalog::from_bytes(bytes) {
        let _ = readers::search(&catalog);
    }
});
