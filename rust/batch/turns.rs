//! Whose turn it is in a chunk: which lanes start a session, and which show a page of theirs.

use super::Phase;

/// A lane that plays the sessions of a stream, one after the other.
pub trait Numbered {
    /// Seed of the stream, and number of the session within it.
    fn number(&mut self) -> (&mut u64, &mut u64);

    /// Goes on to the next session of the stream.
    fn advance(&mut self) {
        let (_, session) = self.number();
        *session = session.wrapping_add(1);
    }
}

/// Lanes of a chunk by what they do in a reset or a step, each list ascending.
#[derive(Debug, Default)]
pub struct Turns {
    /// Those that start a session.
    pub starting: Vec<usize>,
    /// Those that show a page.
    pub playing: Vec<usize>,
    /// Those whose session ended on that page.
    pub ended: Vec<usize>,
}

impl Turns {
    /// A reset: the environments of `mask` (all, without one) start session 0 of new streams if
    /// there are `seeds`, else the next session of their stream. Lane 0 is environment `first`.
    pub fn reset(
        &mut self,
        first: usize,
        lanes: &mut [impl Numbered],
        phases: &mut [Phase],
        seeds: Option<&[u64]>,
        mask: Option<&[bool]>,
    ) {
        self.starting.clear();
        for (index, (lane, phase)) in lanes.iter_mut().zip(phases).enumerate() {
            let env = first + index;
            if mask.is_none_or(|mask| mask[env]) {
                match seeds {
                    Some(seeds) => {
                        let (seed, session) = lane.number();
                        (*seed, *session) = (seeds[env], 0);
                    }
                    None => lane.advance(),
                }
                *phase = Phase::Playing;
                self.starting.push(index);
            }
        }
    }

    /// The beginning of a step: lanes whose session ended before start the next one, all others
    /// play; none has ended yet.
    pub fn begin(&mut self, lanes: &mut [impl Numbered], phases: &mut [Phase]) {
        self.starting.clear();
        self.playing.clear();
        self.ended.clear();
        for (index, (lane, phase)) in lanes.iter_mut().zip(phases).enumerate() {
            if *phase == Phase::Over {
                *phase = Phase::Playing;
                lane.advance();
                self.starting.push(index);
            } else {
                self.playing.push(index);
            }
        }
    }

    /// The environments whose session ended, and their last observations of `width` values, which
    /// `observe` writes into zeros.
    pub fn finished(
        &self,
        first: usize,
        width: usize,
        observe: impl Fn(usize, &mut [f32]),
    ) -> (Vec<i64>, Vec<f32>) {
        let mut observations = vec![0.0; self.ended.len() * width];
        for (lane, out) in self.ended.iter().zip(observations.chunks_mut(width)) {
            observe(*lane, out);
        }
        (self.ended.iter().map(|lane| (first + lane) as i64).collect(), observations)
    }

    /// The lanes whose session ended go on to the next one.
    pub fn advance(&self, lanes: &mut [impl Numbered]) {
        self.ended.iter().for_each(|lane| lanes[*lane].advance());
    }
}
