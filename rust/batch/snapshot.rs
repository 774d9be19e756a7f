//! What the snapshots of every kind of batch have in common.
//!
//! Layout, little endian: magic, number of environments u64, digest of what they play in (64
//! ASCII), then as many bytes for each environment.

use std::slice::ChunksExact;

use crate::error::{Error, Result};

const DIGEST: usize = 64;
const HEADER: usize = 8 + 8 + DIGEST;

/// What a snapshot begins with, and is bound to.
pub struct Header<'a> {
    /// Kind of the snapshot, and version of its layout.
    pub magic: &'static [u8; 8],
    /// Number of environments.
    pub num_envs: usize,
    /// Bytes of each.
    pub size: usize,
    /// What they play in: simulator or store.
    pub place: &'static str,
    /// Digest of that.
    pub digest: &'a str,
}

impl Header<'_> {
    /// A snapshot without environments yet, and with room for them.
    pub fn begin(&self) -> Vec<u8> {
        let mut state = Vec::with_capacity(HEADER + self.num_envs * self.size);
        state.extend(self.magic);
        state.extend((self.num_envs as u64).to_le_bytes());
        state.extend(self.digest.as_bytes());
        state
    }

    /// The bytes of each environment of a snapshot; refuses one with another header.
    pub fn rows<'s>(&self, state: &'s [u8]) -> Result<ChunksExact<'s, u8>> {
        let Self { magic, num_envs, size, place, digest } = *self;
        let fail = |reason: String| Err(Error::format("state", reason));
        if state.first_chunk() != Some(magic) {
            return fail("expected a snapshot of get_state, got other bytes".into());
        }
        let length = HEADER + num_envs * size;
        let envs = state[8..].first_chunk().map(|envs| u64::from_le_bytes(*envs));
        if envs != Some(num_envs as u64) || state.len() != length {
            let envs = envs.map_or("none".into(), |envs| envs.to_string());
            let got = format!("{envs} in {}", state.len());
            return fail(format!("expected {num_envs} environments in {length} bytes, got {got}"));
        }
        let (header, rows) = state.split_at(HEADER);
        let got = &header[HEADER - DIGEST..];
        if got != digest.as_bytes() {
            let got = String::from_utf8_lossy(got);
            return fail(format!("expected {place} {digest}, got {got}"));
        }
        Ok(rows.chunks_exact(size))
    }
}

/// Takes little-endian values from the front of an environment's bytes, which are long enough.
pub struct Row<'a>(pub &'a [u8]);

impl<'a> Row<'a> {
    /// So many bytes.
    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        let (value, rest) = self.0.split_first_chunk().expect("the length was checked");
        self.0 = rest;
        *value
    }

    /// A number of 32 bits.
    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// A number of 64 bits.
    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// The error for a value of an environment that no batch writes.
pub fn out_of_range(env: usize, what: &str, got: u64) -> Error {
    Error::format("state", format!("environment {env}: {what} out of range: got {got}"))
}
