//! What a rollout is played in: a simulator's customers, or a store's.

use std::fmt::Debug;

use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::logs::Shape;
use crate::policy::{Logger, Place, Seen};
use crate::rng::{Origin, Purpose};
use crate::session::{self, Arrival};
use crate::simulator::Simulator;
use crate::store::{Config, LOGGED_SD, PAGE, QUERY_FIELD, Store, page};
use crate::tensor_file::json;

/// What logs call a store.
const STORE: &str = "ground-truth-store";

/// A page that was shown, as a log records it.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the columns of a log")]
pub struct Page {
    pub session: u64,
    /// Page within the session, from 0.
    pub page: u32,
    pub clicks: u8,
    pub second: u8,
    pub outcome: u8,
    /// Price of what was bought.
    pub value: f32,
    pub hour: f32,
}

/// Customers who can be shown pages, many sessions side by side.
pub trait Scene: Sync {
    /// The sessions of some lanes.
    type Sessions: Debug + Send;
    /// Buffers of a thread.
    type Workspace: Debug + Default + Send;
    /// Whether a session's customer may change from page to page.
    const CUSTOMERS_CHANGE: bool;

    /// Refuses a scene whose sessions need not end.
    fn check(&self) -> Result<()>;
    /// What rows of its logs look like.
    fn shape(&self) -> Shape;
    /// The day, as a log records it.
    fn day(&self) -> i16;
    /// What policies are packed for.
    fn place(&self) -> Place<'_>;
    /// What a log says of it.
    fn metadata(&self) -> Vec<(&'static str, String)>;

    /// Lanes without sessions.
    fn lanes(&self, count: usize) -> Self::Sessions;
    /// Starts session `first` of the stream in the first of some lanes, the next in the second.
    fn enter(
        &self,
        sessions: &mut Self::Sessions,
        kernels: Kernels,
        workspace: &mut Self::Workspace,
        lanes: &[usize],
        seed: u64,
        first: u64,
    );
    /// Shows a page to each of some lanes; `actions` has a row a lane.
    fn show(
        &self,
        sessions: &mut Self::Sessions,
        kernels: Kernels,
        workspace: &mut Self::Workspace,
        lanes: &[usize],
        actions: &[f32],
    ) -> Result<()>;

    /// The sessions as a policy sees them.
    fn seen<'s>(&'s self, sessions: &'s Self::Sessions) -> impl Seen + 's;
    /// Writes a lane's observation into zeros.
    fn observe(&self, sessions: &Self::Sessions, lane: usize, out: &mut [f32]);
    /// The page that a lane was shown last.
    fn shown(&self, sessions: &Self::Sessions, lane: usize) -> Page;
    /// Whether that was the last page of its session.
    fn over(&self, sessions: &Self::Sessions, lane: usize) -> bool;
    /// Rows of the items on that page; empty if there are none.
    fn items<'s>(&self, sessions: &'s Self::Sessions, lane: usize) -> &'s [u32];
}

impl Scene for Simulator {
    type Sessions = session::Sessions;
    type Workspace = session::Workspace;
    const CUSTOMERS_CHANGE: bool = false;

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn shape(&self) -> Shape {
        Shape::from(&self.schema)
    }

    fn day(&self) -> i16 {
        0
    }

    fn place(&self) -> Place<'_> {
        Place::from(self)
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        let mut about = vec![
            ("schema", json(&self.schema)),
            ("simulator", self.name.clone()),
            ("simulator_digest", self.digest.clone()),
        ];
        if self.config.answers_outcome() {
            // What was observed follows from it.
            about.push(("heads", "outcome".to_owned()));
        }
        if self.is_reduced {
            about.push(("precision", "reduced".to_owned()));
        }
        about
    }

    fn lanes(&self, count: usize) -> Self::Sessions {
        Self::Sessions::new(self, count)
    }

    fn enter(
        &self,
        sessions: &mut Self::Sessions,
        kernels: Kernels,
        workspace: &mut Self::Workspace,
        lanes: &[usize],
        seed: u64,
        first: u64,
    ) {
        for (session, lane) in (first..).zip(lanes) {
            let lane = &mut sessions.lanes[*lane];
            (lane.seed, lane.session) = (seed, session);
        }
        sessions.open(self, kernels, workspace, lanes, Arrival::Session);
    }

    fn show(
        &self,
        sessions: &mut Self::Sessions,
        kernels: Kernels,
        workspace: &mut Self::Workspace,
        lanes: &[usize],
        actions: &[f32],
    ) -> Result<()> {
        let size = self.schema.action;
        let action = |row: usize, _| &actions[row * size..][..size];
        sessions.show(self, kernels, workspace, lanes, action, None);
        Ok(())
    }

    fn seen<'s>(&'s self, sessions: &'s Self::Sessions) -> impl Seen + 's {
        sessions
    }

    fn observe(&self, sessions: &Self::Sessions, lane: usize, out: &mut [f32]) {
        sessions.observe_into_zeros(self, lane, out);
    }

    fn over(&self, sessions: &Self::Sessions, lane: usize) -> bool {
        sessions.lanes[lane].over()
    }

    fn shown(&self, sessions: &Self::Sessions, lane: usize) -> Page {
        let lane = &sessions.lanes[lane];
        Page {
            session: lane.session,
            page: lane.page - 1,
            clicks: lane.clicks,
            second: lane.units(self),
            outcome: lane.outcome,
            value: 0.0,
            hour: f32::NAN,
        }
    }

    fn items<'s>(&self, _: &'s Self::Sessions, _: usize) -> &'s [u32] {
        &[]
    }
}

impl Scene for Store {
    type Sessions = page::Sessions;
    type Workspace = page::Workspace;
    const CUSTOMERS_CHANGE: bool = true;

    fn check(&self) -> Result<()> {
        if !self.config.continuing {
            return Ok(());
        }
        let expected = "one whose sessions end (step the environments of a continuing one)";
        Err(Error::argument("store of a rollout", expected, "continuing=True"))
    }

    fn shape(&self) -> Shape {
        Shape { items: PAGE, ..Shape::from(&self.schema) }
    }

    fn day(&self) -> i16 {
        self.config.day as i16
    }

    fn place(&self) -> Place<'_> {
        let means = self.logged_means.as_flattened();
        Place {
            name: STORE,
            schema: &self.schema,
            observation_width: self.observation_width(),
            logger: Some(Logger { sd: LOGGED_SD as f32, query: QUERY_FIELD, means }),
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![
            ("schema", json(&self.schema)),
            ("page_items", PAGE.to_string()),
            ("store", STORE.to_owned()),
            ("store_config", json(&Config { strength: None, ..self.config.clone() })),
            ("customers", self.model.name()),
            ("memory", self.config.memory.to_string()),
            ("observe_page", self.config.observe_page.to_string()),
            ("observe_feedback", self.config.observe_feedback.to_string()),
            ("store_digest", self.digest.clone()),
        ]
    }

    fn lanes(&self, count: usize) -> Self::Sessions {
        Self::Sessions::new(self, count)
    }

    fn enter(
        &self,
        sessions: &mut Self::Sessions,
        _: Kernels,
        _: &mut Self::Workspace,
        lanes: &[usize],
        seed: u64,
        first: u64,
    ) {
        for (session, lane) in (first..).zip(lanes) {
            let lane = &mut sessions.lanes[*lane];
            (lane.seed, lane.session) = (seed, session);
        }
        sessions.open(self, lanes);
    }

    fn show(
        &self,
        sessions: &mut Self::Sessions,
        _: Kernels,
        workspace: &mut Self::Workspace,
        lanes: &[usize],
        actions: &[f32],
    ) -> Result<()> {
        let size = self.schema.action;
        sessions.show(self, workspace, lanes, |row: usize, _| &actions[row * size..][..size])
    }

    fn seen<'s>(&'s self, sessions: &'s Self::Sessions) -> impl Seen + 's {
        StoreSessions { store: self, sessions }
    }

    fn observe(&self, sessions: &Self::Sessions, lane: usize, out: &mut [f32]) {
        sessions.observe_into_zeros(self, lane, out);
    }

    fn over(&self, sessions: &Self::Sessions, lane: usize) -> bool {
        sessions.lanes[lane].over()
    }

    fn shown(&self, sessions: &Self::Sessions, lane: usize) -> Page {
        let lane = &sessions.lanes[lane];
        Page {
            session: lane.session,
            page: lane.shown - 1,
            clicks: lane.units(),
            second: lane.units(),
            outcome: lane.outcome,
            value: (f64::from(lane.cents) / 100.0) as f32,
            hour: lane.hour,
        }
    }

    fn items<'s>(&self, sessions: &'s Self::Sessions, lane: usize) -> &'s [u32] {
        sessions.items(lane)
    }
}

/// A store's sessions together with what the store lets be seen of them.
struct StoreSessions<'a> {
    store: &'a Store,
    sessions: &'a page::Sessions,
}

impl Seen for StoreSessions<'_> {
    fn customer(&self, lane: usize) -> &[u8] {
        self.sessions.customer(lane)
    }

    fn tail(&self, lane: usize, out: &mut [f32]) {
        let (tail, history) = out.split_at_mut(page::TAIL);
        tail.copy_from_slice(&self.sessions.tail(self.store, lane));
        history.copy_from_slice(self.sessions.history(lane));
    }

    fn origin(&self, lane: usize) -> Origin {
        self.sessions.lanes[lane].origin(Purpose::Policy)
    }
}
