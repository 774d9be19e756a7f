//! Snapshots of a batch: every environment's session, bound to store and size.
//!
//! After the header of [`crate::batch::snapshot`], for each environment: the fields of [`Lane`] in
//! their order, phase u8, the customer's field codes u8, the last page's items u32, the actions
//! remembered f32, and the bits of candidates shown u64.

use super::super::customers::{ARCHETYPES, FIELDS, QUERIES, QUERY_FIELD};
use super::super::lane::{End, Lane};
use super::super::page::{MOST_PAGES, Saved};
use super::super::{Hour, PAGE};
use super::{Phase, StoreBatch};
use crate::batch::snapshot::{Header, Row, out_of_range};
use crate::error::Result;
use crate::logs::{self, OUTCOMES};

const LANE: usize = 8 + 8 + 4 * 5 + 8 + 7 + 1;

impl StoreBatch {
    fn header(&self) -> Header<'_> {
        let (sessions, lane) = self.sessions().next().expect("there is an environment");
        let (history, struck) = (sessions.history(lane).len(), sessions.struck(lane).len());
        Header {
            magic: b"vtbstor1",
            num_envs: self.num_envs(),
            size: LANE + FIELDS.len() + PAGE * 4 + history * 4 + struck * 8,
            place: "store",
            digest: &self.store().digest,
        }
    }

    /// A snapshot that [`Self::set_state`] takes back, also in another process.
    pub fn get_state(&self) -> Vec<u8> {
        let mut out = self.header().begin();
        for ((sessions, index), phase) in self.sessions().zip(self.phases()) {
            let lane = &sessions.lanes[index];
            out.extend(lane.seed.to_le_bytes());
            out.extend(lane.session.to_le_bytes());
            for word in [lane.shown, lane.page, lane.buys, lane.cents, lane.hour.to_bits()] {
                out.extend(word.to_le_bytes());
            }
            out.extend(lane.time_of_day.to_le_bytes());
            let Lane { archetype, query, bought, turned, outcome, slot, end, .. } = *lane;
            out.extend([archetype, query, bought, turned, outcome, slot, end as u8, phase as u8]);
            out.extend(sessions.customer(index));
            out.extend(sessions.items(index).iter().flat_map(|item| item.to_le_bytes()));
            out.extend(sessions.history(index).iter().flat_map(|value| value.to_le_bytes()));
            out.extend(sessions.struck(index).iter().flat_map(|bits| bits.to_le_bytes()));
        }
        out
    }

    /// Puts a snapshot back; on an error the batch is as it was.
    pub fn set_state(&mut self, state: &[u8]) -> Result<()> {
        let rows = self.header().rows(state)?.enumerate();
        let saved: Vec<_> =
            rows.map(|(env, bytes)| self.parse(env, Row(bytes))).collect::<Result<_>>()?;
        let mut saved = saved.into_iter();
        for chunk in &mut self.chunks {
            for index in 0..chunk.phases.len() {
                if let Some((lane, phase)) = saved.next() {
                    chunk.sessions.restore(index, lane);
                    chunk.phases[index] = phase;
                }
            }
        }
        Ok(())
    }

    fn parse(&self, env: usize, mut row: Row<'_>) -> Result<(Saved, Phase)> {
        let (sessions, lane) = self.sessions().next().expect("there is an environment");
        let (history, struck) = (sessions.history(lane).len(), sessions.struck(lane).len());
        let store = self.store();
        let fail = |what: &str, got: u64| out_of_range(env, what, got);
        let (seed, session) = (row.long(), row.long());
        let [shown, page, buys, cents, hour] = [(); 5].map(|()| row.word());
        let hour = f32::from_bits(hour);
        let time_of_day = f64::from_bits(row.long());
        let [archetype, query, bought, turned, outcome, slot, end, phase]: [u8; 8] = row.take();
        let end = match end {
            0 => End::Open,
            1 => End::Terminated,
            2 => End::Truncated,
            other => return Err(fail("end", other.into())),
        };
        let phase = Phase::from_code(phase).ok_or_else(|| fail("phase", phase.into()))?;
        let bounds = [
            ("archetype", archetype, ARCHETYPES),
            ("query", query, QUERIES),
            ("units", bought, 2),
            ("turned", turned, 2),
            ("outcome", outcome, OUTCOMES.len()),
            ("slot", slot, PAGE + 1),
        ];
        for (what, value, size) in bounds {
            if usize::from(value) >= size {
                return Err(fail(what, value.into()));
            }
        }
        // An open session has a page to show; a closed one may be one page further.
        let most = store.config.max_index + u32::from(end != End::Open);
        if page > most {
            return Err(fail("page", page.into()));
        }
        if !store.config.continuing && shown > MOST_PAGES {
            return Err(fail("pages shown", shown.into()));
        }
        if phase != Phase::New && store.time_of_day(hour).to_bits() != time_of_day.to_bits() {
            return Err(fail("hour", hour.to_bits().into()));
        }
        // What the page loop cannot have left behind: a session counts what it was shown.
        let own_hour = match store.config.hour {
            Hour::None => hour.is_nan(),
            Hour::At(at) => hour.to_bits() == (at as f32).to_bits(),
            Hour::Uniform => (0.0..24.0).contains(&hour),
        };
        let sold = outcome == logs::BUY;
        let coherent = [
            ("hour", own_hour || phase == Phase::New, hour.to_bits()),
            ("page", page <= shown, page),
            ("purchases", buys <= shown && (buys > 0 || !sold), buys),
            ("price", sold || cents == 0, cents),
            ("slot", phase == Phase::New || sold == (usize::from(slot) < PAGE), slot.into()),
        ];
        if let Some((what, _, got)) = coherent.into_iter().find(|(_, good, _)| !good) {
            return Err(fail(what, got.into()));
        }
        let customer: [u8; FIELDS.len()] = row.take();
        for (field, (code, size)) in customer.iter().zip(FIELDS).enumerate() {
            if usize::from(*code) >= size || (field == QUERY_FIELD && *code != query) {
                return Err(fail(&format!("field_{field}"), (*code).into()));
            }
        }
        let items = [(); PAGE].map(|()| row.word());
        if let Some(item) = items.iter().find(|item| u64::from(**item) >= store.config.items) {
            return Err(fail("item", (*item).into()));
        }
        let history: Vec<f32> = (0..history).map(|_| f32::from_bits(row.word())).collect();
        let [low, high] = store.schema.action_range;
        if let Some(value) = history.iter().find(|value| !(low..=high).contains(*value)) {
            return Err(fail("remembered action", value.to_bits().into()));
        }
        let struck: Vec<u64> = (0..struck).map(|_| row.long()).collect();
        let lane = Lane {
            seed,
            session,
            shown,
            page,
            buys,
            cents,
            hour,
            time_of_day,
            archetype,
            query,
            bought,
            turned,
            outcome,
            slot,
            end,
        };
        let saved = Saved { lane, customer, items, history, struck };
        // Bits beyond the candidates, or more than leave a page, would have no page to show.
        if !sessions.struck_fits(store, &saved) {
            return Err(fail("candidates shown", saved.struck.iter().fold(0, |a, b| a | b)));
        }
        Ok((saved, phase))
    }
}
