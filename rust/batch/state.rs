//! Snapshots of a batch: every environment's session, bound to simulator and size.
//!
//! After the header of [`super::snapshot`], for each environment: seed u64, session u64, page u32,
//! total clicks u32, limit u16, clicks, second, outcome, phase u8, and the customer's field codes
//! u8.

use super::snapshot::{Header, Row, out_of_range};
use super::{Phase, SessionBatch};
use crate::error::Result;
use crate::logs::OUTCOMES;
use crate::session::Lane;
use crate::simulator::{Heads, Leave};

const LANE: usize = 8 + 8 + 4 + 4 + 2 + 4;

impl SessionBatch {
    fn header(&self) -> Header<'_> {
        Header {
            magic: b"vtbstat2",
            num_envs: self.num_envs(),
            size: LANE + self.simulator().schema.customer.len(),
            place: "simulator",
            digest: &self.simulator().digest,
        }
    }

    /// A snapshot that [`Self::set_state`] takes back, also in another process.
    pub fn get_state(&self) -> Vec<u8> {
        let mut out = self.header().begin();
        for chunk in &self.chunks {
            for (index, (lane, phase)) in chunk.sessions.lanes.iter().zip(&chunk.phases).enumerate()
            {
                out.extend(lane.seed.to_le_bytes());
                out.extend(lane.session.to_le_bytes());
                out.extend(lane.page.to_le_bytes());
                out.extend(lane.total_clicks.to_le_bytes());
                out.extend(lane.limit.to_le_bytes());
                out.extend([lane.clicks, lane.second, lane.outcome, *phase as u8]);
                out.extend(chunk.sessions.customer(index));
            }
        }
        out
    }

    /// Puts a snapshot back; on an error the batch is as it was.
    pub fn set_state(&mut self, state: &[u8]) -> Result<()> {
        let rows = self.header().rows(state)?.enumerate();
        let saved: Vec<_> =
            rows.map(|(env, bytes)| self.parse(env, Row(bytes))).collect::<Result<_>>()?;
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

    fn parse<'a>(&self, env: usize, mut row: Row<'a>) -> Result<(Lane, Phase, &'a [u8])> {
        let simulator = self.simulator();
        let fail = |what: &str, got: u64| out_of_range(env, what, got);
        let (seed, session) = (row.long(), row.long());
        let (page, total_clicks) = (row.word(), row.word());
        let limit = u16::from_le_bytes(row.take());
        let [clicks, second, outcome, phase] = row.take();
        let lane = Lane { seed, session, page, total_clicks, limit, clicks, second, outcome };
        let phase = Phase::from_code(phase).ok_or_else(|| fail("phase", phase.into()))?;
        // Beyond this a page number is no longer exact in f32.
        if lane.page > 1 << 24 {
            return Err(fail("page", lane.page.into()));
        }
        let sizes = match simulator.config.response.heads {
            Heads::Clicks { clicks, second } => [clicks, second],
            Heads::Outcome { .. } => [2, 2],
        };
        if usize::from(lane.clicks) >= sizes[0] {
            return Err(fail("clicks", lane.clicks.into()));
        }
        if usize::from(lane.second) >= sizes[1] {
            return Err(fail("second head", lane.second.into()));
        }
        if usize::from(lane.outcome) >= OUTCOMES.len() {
            return Err(fail("outcome", lane.outcome.into()));
        }
        let limit_fits = match simulator.leave {
            Leave::Once(_) => usize::from(lane.limit) <= simulator.leave.most_pages(),
            // A lane that was never reset has no limit yet.
            Leave::Hazard(longest) => lane.limit == longest || phase == Phase::New,
        };
        if !limit_fits {
            return Err(fail("page limit", lane.limit.into()));
        }
        let Row(customer) = row;
        for (code, field) in customer.iter().zip(&simulator.schema.customer) {
            if usize::from(*code) >= field.size {
                return Err(fail(&field.name, (*code).into()));
            }
        }
        Ok((lane, phase, customer))
    }
}
