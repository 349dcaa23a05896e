//! The worker of the pools in tests: the process of the tests themselves is the test runner's, and cannot be one.

#[path = "functions.rs"]
mod functions;

fn main() {
    lswitch::init(&functions::ALL);
    eprintln!("this is a worker for the tests of pools; they start it");
}
