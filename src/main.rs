//! Parses, runs, and maps the result to an exit code.

use std::process::ExitCode;

/// Messages come and go by the hundred thousand a second; the system's allocator gives their pages back and asks for them
/// again, which took a tenth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lswitch::main(&[])
}
