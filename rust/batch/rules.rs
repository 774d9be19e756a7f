//! What the rules of every kind of batch are made of.

/// When a new session starts after one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Autoreset {
    /// At the next step, whose action is ignored.
    NextStep,
    /// Within the same step.
    SameStep,
    /// When the caller resets.
    Disabled,
}

impl Autoreset {
    /// What callers call them.
    pub const WORDS: [(&str, Self); 3] =
        [("NextStep", Self::NextStep), ("SameStep", Self::SameStep), ("Disabled", Self::Disabled)];
}

/// The action norm constraint of Virtual-Taobao (Shi et al., AAAI 2019, section "ANC"):
/// `r / (1 + rho * max(|a| - mu, 0))` with the Euclidean norm of the executed action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anc {
    /// Strength, at least 0.
    pub rho: f64,
    /// Norm that is still free, at least 0.
    pub mu: f64,
}

impl Anc {
    /// The shaped reward.
    pub fn shape(&self, reward: f64, action: &[f32]) -> f64 {
        let squares = action.iter().fold(0.0, |sum, a| f64::from(*a).mul_add(f64::from(*a), sum));
        reward / (1.0 + self.rho * (squares.sqrt() - self.mu).max(0.0))
    }
}

/// Where an environment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Never reset.
    New = 0,
    /// In a session.
    Playing = 1,
    /// Its session is over.
    Over = 2,
}

impl Phase {
    /// The phase that a snapshot writes as this code.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::New, Self::Playing, Self::Over].into_iter().find(|phase| *phase as u8 == code)
    }
}
