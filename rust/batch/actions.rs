//! Actions as they are executed.

/// Whether any value lies outside of a range. No early exit: such a loop becomes vector code.
fn outside(values: &[f32], [low, high]: [f32; 2]) -> bool {
    values.iter().fold(false, |any, value| any | (*value < low) | (*value > high))
}

/// Actions of `size` values a lane, clipped into a range; `clipped` says of which lanes that play
/// any value was. They go into the buffer only if they have to.
pub fn executed<'a>(
    actions: &'a [f32],
    size: usize,
    range @ [low, high]: [f32; 2],
    playing: &[usize],
    clipped: &mut [bool],
    buffer: &'a mut Vec<f32>,
) -> &'a [f32] {
    if !outside(actions, range) {
        return actions;
    }
    for lane in playing {
        clipped[*lane] = outside(&actions[lane * size..][..size], range);
    }
    buffer.clear();
    buffer.extend(actions.iter().map(|value| value.clamp(low, high)));
    buffer
}
