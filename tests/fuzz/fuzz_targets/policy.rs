//! Whatever the bytes of a policy are: an error or actions, no crash, no endless work.

#![no_main]
#![allow(dead_code, reason = "each target uses some of what they share")]

#[path = "../mutate.rs"]
mod mutate;
#[path = "../readers.rs"]
mod readers;

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use mutate::Kind;
use virtualtb_fast::policy::Policy;
use virtualtb_fast::simulator::Simulator;

/// Where policies play.
static PLACE: LazyLock<Arc<Simulator>> = LazyLock::new(|| {
    let bytes = include_bytes!("../corpus/simulator/a-mlp.safetensors");
    Simulator::from_bytes(bytes, "corpus").expect("a whole file")
});

fuzz_mutator!(|data: &mut [u8], size: usize, room: usize, seed: u32| {
    mutate::lead(Kind::Policy, data, size, room, seed, fuzzer_mutate)
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(policy) = Policy::from_bytes(bytes, "fuzzed") {
        let _ = readers::follow(&PLACE, &policy);
    }
});
