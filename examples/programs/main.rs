//! An lswitch with four more programs. For example:
//!
//!     cargo run --example programs -- invoke run ring --workers 4
//!     cargo run --example programs -- invoke run monte-carlo --workers 4 --json

mod monte_carlo;
mod parameter_server;
mod ring;
mod word_count;

use lswitch::Program;
use std::process::ExitCode;

static PROGRAMS: [Program; 4] = [
    Program {
        name: "ring",
        run: ring::run,
    },
    Program {
        name: "word-count",
        run: word_count::run,
    },
    Program {
        name: "parameter-server",
        run: parameter_server::run,
    },
    Program {
        name: "monte-carlo",
        run: monte_carlo::run,
    },
];

fn main() -> ExitCode {
    lswitch::main(&PROGRAMS)
}
