//! cargo-lambda (PyPI): somebody else's idea of Lambda, which starts a package's binary as often as calls wait for it.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::{Place, Process, Running, assert_gone, children};

/// `cargo lambda watch` over a package whose one binary, `ranker`, becomes the one that is tested.
pub struct CargoLambda {
    /// `http://127.0.0.1:PORT`
    pub endpoint: String,
    running: Running,
}

impl CargoLambda {
    /// Starts it: from `LSWITCH_CARGO_LAMBDA`, which `make test` sets. None, and plain words, if it is not installed here.
    pub fn start(place: &Place, concurrency: usize) -> Option<CargoLambda> {
        let program = super::installed("LSWITCH_CARGO_LAMBDA", "cargo-lambda")?;
        let manifest = "[package]\nname = \"ranker\"\nedition = \"2021\"\n[workspace]\n";
        place.write("ranker/Cargo.toml", manifest);
        let becomes = format!(
            "fn main() {{\n    use std::os::unix::process::CommandExt;\n    \
             panic!(\"{{}}\", std::process::Command::new({:?}).exec());\n}}\n",
            env!("CARGO_BIN_EXE_lswitch")
        );
        place.write("ranker/src/main.rs", becomes);
        let port = free_port();
        let mut command = std::process::Command::new(program);
        command
            .args(["lambda", "watch", "--wait", "--ignore-changes"])
            .args(["--invoke-address", "127.0.0.1"])
            .args(["--invoke-port", &port.to_string()])
            .args(["--concurrency", &concurrency.to_string()])
            .current_dir(place.path("ranker"));
        let mut run = place.run(command);
        // How cargo and rustup are set up is not this place's matter.
        for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
            if let Some(value) = std::env::var_os(name) {
                run = run.env(name, value);
            }
        }
        let running = run.start();
        running.until("it took calls", Duration::from_secs(60), || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(CargoLambda {
            endpoint: format!("http://127.0.0.1:{port}"),
            running,
        })
    }

    /// The environment in which `lswitch` calls functions here.
    pub fn env(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL_LAMBDA", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "any"),
            ("AWS_SECRET_ACCESS_KEY", "any"),
            ("AWS_REGION", "eu-west-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// The instances of its functions.
    pub fn workers(&self) -> Vec<Process> {
        children(self.running.id())
    }

    /// Ends it, and its workers with it.
    pub fn stop(self) {
        let workers = self.workers();
        self.running.signal(Signal::TERM);
        self.running.wait().ok();
        assert_gone(&workers, 10);
    }
}

/// A port that nobody has. It cannot be asked for port 0, and takes its own a while later: so one of those that systems do
/// not give away by themselves.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    (0..1000)
        .map(|_| first + TRIED.fetch_add(1, Ordering::Relaxed) % 1000)
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("one of a thousand ports is free")
}
