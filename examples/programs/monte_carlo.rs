//! Pi by throwing darts: workers take batches from a counter that they share until none is left, and add up what they found.
//!
//! The event is `{"batches": 64, "darts": 100000}`.

use lswitch::net::element::Fold;
use lswitch::{Context, ProgramError};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Event {
    batches: i64,
    darts: u64,
}

pub fn run(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let event: Event = context.arguments()?;
    let (mut hits, mut batches) = (0u64, 0u64);
    loop {
        let batch = context.comm().counter("next batch").add(1)? - 1;
        if batch >= event.batches {
            break;
        }
        // A batch has darts of its own, whoever throws them, so the result is always the same.
        hits += throw(batch as u64 + 1, event.darts);
        batches += 1;
    }
    let sums = context.comm().all_reduce(Fold::Sum, &[hits, batches])?;
    let darts = sums[1] * event.darts;
    let pi = 4.0 * sums[0] as f64 / darts as f64;
    Ok(serde_json::to_vec(
        &json!({ "pi": pi, "batches": batches }),
    )?)
}

/// How many of so many darts hit the circle.
fn throw(seed: u64, darts: u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..darts)
        .filter(|_| {
            let (x, y) = (next(), next());
            x * x + y * y < 1.0
        })
        .count() as u64
}
