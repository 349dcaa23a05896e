//! Functions that the tests of pools call. `worker.rs`, an example for cargo, is the worker that has them.

use lswitch::{Context, Function};
use std::time::Duration;

fn echo(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    Ok(bytes)
}

fn double(number: u64) -> Result<u64, String> {
    let double = number.checked_mul(2);
    double.ok_or_else(|| format!("{number} is too large"))
}

fn panics(words: String) -> Result<(), String> {
    panic!("it says {words}")
}

/// Ends its worker, always or the first time: while the file that it is given is not there.
fn dies(marker: Option<String>) -> Result<u32, std::io::Error> {
    if let Some(marker) = &marker {
        if std::fs::exists(marker)? {
            return Ok(7);
        }
        std::fs::write(marker, "")?;
    }
    std::process::abort()
}

fn sleep((number, ms): (u64, u64)) -> Result<u64, String> {
    std::thread::sleep(Duration::from_millis(ms));
    Ok(number)
}

fn zeros(length: usize) -> Result<Vec<u8>, String> {
    Ok(vec![0; length])
}

/// Where it runs: its rank, the milliseconds that are left, its store, its process.
fn place(context: &Context, _: ()) -> Result<(u32, u64, String, u32), String> {
    let store = context.store().map_err(|error| error.to_string())?;
    let left = context.remaining().as_millis() as u64;
    Ok((context.rank(), left, store.url().into(), std::process::id()))
}

pub const ECHO: Function<Vec<u8>, Vec<u8>> = Function::new("echo", echo);
pub const DOUBLE: Function<u64, u64> = Function::new("double", double);
pub const PANICS: Function<String, ()> = Function::new("panics", panics);
pub const DIES: Function<Option<String>, u32, std::io::Error> = Function::new("dies", dies);
pub const SLEEP: Function<(u64, u64), u64> = Function::new("sleep", sleep);
pub const ZEROS: Function<usize, Vec<u8>> = Function::new("zeros", zeros);
pub const PLACE: Function<(), (u32, u64, String, u32)> = Function::with_context("place", place);
