//! How many primes are there? A function on a pool of warm workers; this program starts them, and is what they run. For example:
//!
//!     cargo run --example pool -- 10000000 --workers 4

use lswitch::{Function, Pool};
use std::error::Error;
use std::time::Instant;

/// How many of these numbers are prime.
fn count_primes((from, to): (u64, u64)) -> Result<u64, String> {
    if from > to {
        return Err(format!("from {from} to {to} there is nothing to count"));
    }
    let is_prime = |number: &u64| {
        let mut divisors = (2..).take_while(|divisor| divisor * divisor <= *number);
        *number > 1 && !divisors.any(|divisor| number.is_multiple_of(divisor))
    };
    Ok((from..to).filter(is_prime).count() as u64)
}

const COUNT_PRIMES: Function<(u64, u64), u64> = Function::new("count_primes", count_primes);

/// Numbers that are looked at in one call.
const STRETCH: u64 = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    // Workers stay in this call.
    lswitch::init(&[&COUNT_PRIMES]);
    let mut arguments = std::env::args().skip(1);
    let below: u64 = arguments.next().as_deref().unwrap_or("1000000").parse()?;
    let workers = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--workers"), Some(count)) => count.parse()?,
        (None, None) => 4,
        _ => return Err("write: pool [BELOW] [--workers COUNT]".into()),
    };

    let pool = Pool::builder().workers(workers).start()?;
    // The first call starts the workers.
    assert_eq!(pool.apply(&COUNT_PRIMES, (0, 100))?, 25);
    // A call that fails has its words.
    let error = pool
        .apply(&COUNT_PRIMES, (9, 3))
        .expect_err("it is no range");
    eprintln!("as it should be: {error}");

    let begun = Instant::now();
    let stretches = (0..below)
        .step_by(STRETCH as usize)
        .map(|from| (from, below.min(from + STRETCH)));
    let mut primes = 0;
    for count in pool.map(&COUNT_PRIMES, stretches) {
        primes += count?;
    }
    println!("{primes} primes below {below}");
    eprintln!("{workers} workers, {:.3} s", begun.elapsed().as_secs_f64());
    pool.join()?;
    Ok(())
}
