//! Whatever the bytes of a simulator are: an error or sessions, no crash, no endless work.

#![no_main]
#![allow(dead_code, reason = "each target uses some of what they share")]

#[path = "../mutate.rs"]
mod mutate;
#[path = "../readers.rs"]
mod readers;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use mutate::Kind;
use virtualtb_fast::simulator::Simulator;

fuzz_mutator!(|data: &mut [u8], size: usize, room: usize, seed: u32| {
    mutate::lead(Kind::Simulator, data, size, room, seed, fuzzer_mutate)
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(simulator) = Simulator::from_bytes(bytes, "fuzzed") {
        let _ = readers::play(simulator);
    }
});
