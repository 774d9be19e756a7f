//! Sessions against themselves in other company, and against the rules of their ends.

use super::*;
use crate::kernels::Isa;
use crate::testing;

/// Plays three pages of sessions 0 to `count - 1`, in tiles as `order` lays the lanes out.
fn play(kernels: Kernels, count: usize, order: &[usize]) -> Vec<(Lane, Vec<u8>, Vec<f32>)> {
    let simulator = testing::simulator(3);
    let mut sessions = Sessions::new(&simulator, count);
    for (session, lane) in sessions.lanes.iter_mut().enumerate() {
        (lane.seed, lane.session) = (11, session as u64);
    }
    let mut workspace = Workspace::default();
    sessions.open(&simulator, kernels, &mut workspace, order, Arrival::Session);
    let actions: Vec<f32> = (0..count * 5).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    for _ in 0..3 {
        let action = |_, lane: usize| &actions[lane * 5..][..5];
        sessions.show(&simulator, kernels, &mut workspace, order, action, None);
    }
    let width = simulator.schema.observation_width();
    let seen = |lane: usize| {
        let mut out = vec![0.0; width];
        sessions.observe(&simulator, lane, &mut out);
        (sessions.lanes[lane], sessions.customer(lane).to_vec(), out)
    };
    (0..count).map(seen).collect()
}

#[test]
fn sessions_do_not_depend_on_company_order_or_instruction_set() {
    let count = 131;
    let forward: Vec<_> = (0..count).collect();
    let backward: Vec<_> = (0..count).rev().collect();
    let want = play(Kernels::of(Isa::Scalar).unwrap(), count, &forward);
    assert!(want.iter().any(|(lane, ..)| lane.total_clicks > 0));
    for isa in Isa::ALL {
        if let Ok(kernels) = Kernels::of(isa) {
            assert_eq!(play(kernels, count, &forward), want, "{isa:?}");
            assert_eq!(play(kernels, count, &backward), want, "{isa:?} backward");
            assert_eq!(play(kernels, 1, &[0])[..], want[..1], "{isa:?} alone");
        }
    }
}

#[test]
fn a_replacement_changes_the_customer_but_not_the_count() {
    let simulator = testing::simulator(3);
    let kernels = Kernels::best().unwrap();
    let mut workspace = Workspace::default();
    let lanes: Vec<_> = (0..64).collect();
    let mut sessions = Sessions::new(&simulator, lanes.len());
    sessions.lanes.iter_mut().enumerate().for_each(|(i, lane)| lane.session = i as u64);
    sessions.open(&simulator, kernels, &mut workspace, &lanes, Arrival::Session);
    sessions.show(&simulator, kernels, &mut workspace, &lanes, |_, _| &[0.5; 5], None);
    let before = sessions.clone();
    sessions.open(&simulator, kernels, &mut workspace, &lanes, Arrival::Replacement);
    for lane in 0..lanes.len() {
        let (old, new) = (before.lanes[lane], sessions.lanes[lane]);
        assert_eq!((old.page, old.total_clicks), (new.page, new.total_clicks));
        assert_eq!((new.clicks, new.second), (0, 0));
    }
    let changed = lanes.iter().filter(|l| before.customer(**l) != sessions.customer(**l)).count();
    assert!(changed > 32, "{changed} of 64 customers replaced");
}
