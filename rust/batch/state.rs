//! Snapshots of a batch: every environment's session, bound to simulator and size.
//!
//! After the header of [`super::snapshot`], for each environment: seed u64, session u64, page u32,
//! total clicks u32, clicks, second, limit, phase u8, and the customer's field codes u8.

use super::snapshot::{Header, Row, out_of_range};
use super::{Phase, SessionBatch};
use crate::error::Result;
use crate::session::Lane;

const LANE: usize = 8 + 8 + 4 + 4 + 4;

impl SessionBatch {
    fn header(&self) -> Header<'_> {
        Header {
            magic: b"vtbstat1",
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
                out.extend([lane.clicks, lane.second, lane.limit, *phase as u8]);
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
        let [clicks, second, limit, phase] = row.take();
        let lane = Lane { seed, session, page, total_clicks, clicks, second, limit };
        let phase = Phase::from_code(phase).ok_or_else(|| fail("phase", phase.into()))?;
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
        let Row(customer) = row;
        for (code, field) in customer.iter().zip(&simulator.schema.customer) {
            if usize::from(*code) >= field.size {
                return Err(fail(&field.name, (*code).into()));
            }
        }
        Ok((lane, phase, customer))
    }
}
