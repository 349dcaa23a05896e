//! What calls on a pool in Rust cost. Reads what to measure from standard input, a line each (`submit`, `map` or `one`), and answers
//! with seconds, so that `run.py` can take turns with others.
//!
//!     echo submit | lswitch-bench-calls [WORKERS [CALLS]]

use lswitch::{Function, Pool};
use std::error::Error;
use std::io::BufRead;
use std::time::Instant;

fn nothing(_: ()) -> Result<(), String> {
    Ok(())
}

fn same(number: u64) -> Result<u64, String> {
    Ok(number)
}

const NOTHING: Function<(), ()> = Function::new("nothing", nothing);
const SAME: Function<u64, u64> = Function::new("same", same);

/// Calls of which the median is the time of one.
const ONES: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    lswitch::init(&[&NOTHING, &SAME]);
    let mut arguments = std::env::args().skip(1);
    let mut next = |otherwise: u64| {
        let given = arguments.next();
        given.map_or(Ok(otherwise), |text| text.parse::<u64>())
    };
    let (workers, calls) = (next(4)?, next(10_000)?);
    let pool = Pool::builder().workers(workers as u32).start()?;
    for line in std::io::stdin().lock().lines() {
        let seconds = match line?.trim() {
            "submit" => submitted(&pool, calls)?,
            "map" => mapped(&pool, calls)?,
            "one" => one(&pool)?,
            other => return Err(format!("{other:?} is none of submit, map, one").into()),
        };
        println!("{seconds}");
    }
    pool.join()?;
    Ok(())
}

/// All calls, a message each.
fn submitted(pool: &Pool, calls: u64) -> Result<f64, Box<dyn Error>> {
    let begun = Instant::now();
    let given: Result<Vec<_>, _> = (0..calls).map(|_| pool.apply_async(&NOTHING, ())).collect();
    for pending in given? {
        pending.wait()?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// All calls, several in a message.
fn mapped(pool: &Pool, calls: u64) -> Result<f64, Box<dyn Error>> {
    let begun = Instant::now();
    let mut sum = 0;
    for number in pool.stream(&SAME, 0..calls) {
        sum += number?;
    }
    assert_eq!(sum, calls * calls.saturating_sub(1) / 2);
    Ok(begun.elapsed().as_secs_f64())
}

/// One call, as the median of many.
fn one(pool: &Pool) -> Result<f64, Box<dyn Error>> {
    let mut times = Vec::with_capacity(ONES);
    for _ in 0..ONES {
        let begun = Instant::now();
        pool.apply(&NOTHING, ())?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[ONES / 2].as_secs_f64())
}
