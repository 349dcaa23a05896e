//! Logistic regression with the switch as parameter server: each rank has data of its own, pulls the weights, and adds the
//! step that its gradient asks for, without waiting for the others (asynchronous stochastic gradient descent).
//!
//! The data is generated: points in eight dimensions, labelled by a plane through the origin. The event is `{"rounds": 200}`.

use lswitch::{Context, ProgramError};
use serde::Deserialize;
use serde_json::json;

const DIMENSIONS: usize = 8;
const POINTS: usize = 500;
const RATE: f64 = 0.5;

#[derive(Deserialize)]
struct Event {
    rounds: u32,
}

type Point = ([f64; DIMENSIONS], f64);

pub fn run(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let event: Event = context.arguments()?;
    let (rank, size) = (context.rank(), context.size());
    let points = points(rank);
    let comm = context.comm();
    comm.vector("weights").create::<f64>(DIMENSIONS as u32)?;
    for _ in 0..event.rounds {
        let weights = pull(context)?;
        let mut step = [0.0; DIMENSIONS];
        for (x, label) in &points {
            let error = label - probability(&weights, x);
            for (step, x) in step.iter_mut().zip(x) {
                *step += RATE * error * x / (POINTS as f64 * f64::from(size));
            }
        }
        context.comm().vector("weights").add(0, &step)?;
    }
    context.comm().barrier()?;
    let weights = pull(context)?;
    let is_right = |(x, label): &&Point| (probability(&weights, x) > 0.5) == (*label > 0.5);
    let right = points.iter().filter(is_right).count();
    Ok(serde_json::to_vec(
        &json!({ "accuracy": right as f64 / POINTS as f64, "weights": weights }),
    )?)
}

fn pull(context: &mut Context) -> Result<Vec<f64>, ProgramError> {
    let mut vector = context.comm().vector("weights");
    let pulled = vector.pull::<f64>(0, DIMENSIONS as u32, 0)?;
    let (_, weights) = pulled.ok_or_else(|| ProgramError::new("the weights have no version"))?;
    Ok(weights)
}

fn probability(weights: &[f64], x: &[f64; DIMENSIONS]) -> f64 {
    let sum: f64 = weights.iter().zip(x).map(|(w, x)| w * x).sum();
    1.0 / (1.0 + (-sum).exp())
}

/// This rank's points: whatever it is, they lie on the same two sides.
fn points(rank: u32) -> Vec<Point> {
    let mut state = 88_172_645_463_325_252u64.wrapping_add(u64::from(rank) << 20);
    let mut next = || {
        // Marsaglia's xorshift, from -1 to 1.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    let point = |_| {
        let x: [f64; DIMENSIONS] = std::array::from_fn(|_| next());
        let side: f64 = x
            .iter()
            .enumerate()
            .map(|(i, x)| x * (i as f64 - 3.5))
            .sum();
        (x, f64::from(side > 0.0))
    };
    (0..POINTS).map(point).collect()
}
