//! The worker of the pools in tests: the process of the tests themselves is the test runner's, and cannot be one.

#[path = "functions.rs"]
mod functions;

use functions::{DIES, DOUBLE, ECHO, PANICS, PLACE, SLEEP, ZEROS};

fn main() {
    lswitch::init(&[&ECHO, &DOUBLE, &PANICS, &DIES, &SLEEP, &ZEROS, &PLACE]);
    eprintln!("this is a worker for the tests of pools; they start it");
}
