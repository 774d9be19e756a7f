//! Snapshots of a batch: every environment's session, bound to simulator and size.
//!
//! Layout, little endian: magic, number of environments u64, simulator digest (64 ASCII), then for
//! each environment seed u64, session u64, page u32, total clicks u32, clicks, second, limit,
//! phase u8, and the customer's field codes u8.

use super::{Phase, SessionBatch};
use crate::error::{Error, Result};
use crate::session::Lane;

const MAGIC: &[u8; 8] = b"vtbstat1";
const DIGEST: usize = 64;
const LANE: usize = 8 + 8 + 4 + 4 + 4;

impl SessionBatch {
    /// A snapshot that [`Self::set_state`] takes back, also in another process.
    pub fn get_state(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend((self.num_envs() as u64).to_le_bytes());
        out.extend(self.simulator().digest.as_bytes());
        for chunk in &self.chunks {
            for (index, (lane, phase)) in chunk.sessions.lanes.iter().zip(&chunk.phases).enumerate()
            {
                out.extend(lane.seed.to_le_bytes());
                out.extend(lane.session.to_le_bytes());
                out.extend(lane.page.to_le_bytes());
                out.extend(lane.total_clicks.to_le_bytes());
                out.extend([lane.clicks, lane.second, lane.limit, *phase as u8]);
                out.extend(chunk.sessions.customer(index));
            }
        }
        out
    }

    /// Puts a snapshot back; on an error the batch is as it was.
    pub fn set_state(&mut self, state: &[u8]) -> Result<()> {
        let fail = |reason: String| Error::format("state", reason);
        let fields = self.simulator().schema.customer.len();
        let (header, size) = (MAGIC.len() + 8 + DIGEST, LANE + fields);
        if state.get(..8) != Some(MAGIC) {
            return Err(fail("expected a snapshot of get_state, got other bytes".into()));
        }
        let expected = header + self.num_envs() * size;
        let envs = state[8..].first_chunk().map(|envs| u64::from_le_bytes(*envs));
        if envs != Some(self.num_envs() as u64) || state.len() != expected {
            return Err(fail(format!(
                "expected {} environments in {expected} bytes, got {} in {}",
                self.num_envs(),
                envs.map_or("none".into(), |envs| envs.to_string()),
                state.len()
            )));
        }
        let digest = &state[16..header];
        if digest != self.simulator().digest.as_bytes() {
            return Err(fail(format!(
                "expected simulator {}, got {}",
                self.simulator().digest,
                String::from_utf8_lossy(digest)
            )));
        }
        let saved: Vec<_> = state[header..]
            .chunks(size)
            .enumerate()
            .map(|(env, bytes)| self.parse(env, bytes))
            .collect::<Result<_>>()?;
        let (simulator, kernels) = (self.simulator().clone(), self.kernels);
        let mut saved = saved.into_iter();
        for chunk in &mut self.chunks {
            for index in 0..chunk.phases.len() {
                if let Some((lane, phase, customer)) = saved.next() {
                    chunk.sessions.restore(&simulator, kernels, index, lane, customer);
                    chunk.phases[index] = phase;
                }
            }
        }
        Ok(())
    }

    fn parse<'a>(&self, env: usize, bytes: &'a [u8]) -> Result<(Lane, Phase, &'a [u8])> {
        let simulator = self.simulator();
        let fail = |what: &str, got: u64| {
            Error::format("state", format!("environment {env}: {what} out of range: got {got}"))
        };
        let long = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        let lane = Lane {
            seed: long(0),
            session: long(8),
            page: word(16),
            total_clicks: word(20),
            clicks: bytes[24],
            second: bytes[25],
            limit: bytes[26],
        };
        let phase = match bytes[27] {
            0 => Phase::New,
            1 => Phase::Playing,
            2 => Phase::Over,
            other => return Err(fail("phase", other.into())),
        };
        // Beyond this a page number is no longer exact in f32.
        if lane.page > 1 << 24 {
            return Err(fail("page", lane.page.into()));
        }
        let response = &simulator.config.response;
        if usize::from(lane.clicks) >= response.clicks {
            return Err(fail("clicks", lane.clicks.into()));
        }
        if usize::from(lane.second) >= response.second {
            return Err(fail("second head", lane.second.into()));
        }
        if usize::from(lane.limit) >= simulator.leave_head[0].size {
            return Err(fail("page limit", lane.limit.into()));
        }
        let customer = &bytes[LANE..];
        for (code, field) in customer.iter().zip(&simulator.schema.customer) {
            if usize::from(*code) >= field.size {
                return Err(fail(&field.name, (*code).into()));
            }
        }
        Ok((lane, phase, customer))
    }
}
