//! Exact figures of simple policies in a store: how their sessions go, without simulating any.

use super::course::Course;
use super::model::CustomerModel;
use super::world::CHECK_SAMPLES;
use super::{ATTRIBUTES, Hour, Leave, Part, Store, Strength, clipped};
use crate::error::{Error, Result};
use crate::session::refused_value;
use crate::simulator::LARGEST_ACTION;

/// Hours over which a day is averaged where each session has its own.
const HOURS: u32 = 48;

/// A policy whose course can be computed.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// This action on every page; the zero action is one of them.
    Constant(&'a [f32; ATTRIBUTES]),
    /// The logging policy (by some 12,000 sampled pages).
    Logger,
    /// Actions uniform on the box (by some 3,000 sampled pages).
    Uniform,
    /// The ten items that the customer's archetype likes most.
    Oracle,
}

impl Store {
    /// How sessions go under a policy, with the referee's customers on the store's day and hour. A
    /// constant action is clipped into the box, as in the page loop.
    ///
    /// # Errors
    /// [`Error::Argument`] for a constant action that is not finite, or beyond
    /// [`LARGEST_ACTION`](crate::simulator::LARGEST_ACTION).
    /// [`Error::State`] where customers are not the referee's, or take over from one another, or
    /// ask for something else: sessions then have to be played.
    pub fn expected(&self, shown: Shown<'_>) -> Result<Course> {
        let plain = self.config.leave == Leave::End
            && !self.config.continuing
            && self.config.new_request == 0.0;
        if !plain || self.model.name() != self.referee.name() {
            return Err(Error::State(
                "exact figures: expected the referee's customers, each with a session and one \
                 request, got other customers or rules; play sessions instead"
                    .into(),
            ));
        }
        if let Shown::Constant(action) = shown
            && let Some(value) = refused_value(action)
        {
            let expected = format!("finite values of at most {LARGEST_ACTION:e} in magnitude");
            return Err(Error::argument("action", expected, value));
        }
        let world = self.world();
        let course = |time_of_day: f64| {
            let b0 = self.strength.b0 + libm::log(time_of_day);
            let strength = Strength { b0, ..self.strength };
            match shown {
                Shown::Constant(action) => {
                    let weights = std::array::from_fn(|d| self.production[d] + clipped(action[d]));
                    world.course_under(strength, &world.constant(&weights))
                }
                Shown::Logger => {
                    world.course_under(strength, &world.logged(Part::LoggedAgain, CHECK_SAMPLES))
                }
                Shown::Uniform => world.course_under(strength, &world.uniform()),
                Shown::Oracle => world.course_for(strength, &world.oracle()),
            }
        };
        Ok(match self.config.hour {
            Hour::None => course(1.0),
            Hour::At(hour) => course(self.time_of_day(hour as f32)),
            Hour::Uniform => {
                let hours = (0..HOURS).map(|step| (step as f32 + 0.5) * 24.0 / HOURS as f32);
                let mut day = Course::default();
                hours.for_each(|hour| {
                    day.add(&course(self.time_of_day(hour)), 1.0 / f64::from(HOURS));
                });
                day
            }
        })
    }
}
