//! The programs in C: an all-reduce over Open MPI and the barest barrier, compiled when they are needed.

use crate::child;
use crate::traffic::{Latency, Window};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::Duration;

const ALL_REDUCE: &str = include_str!("../mpi/allreduce.c");
const BARRIER: &str = include_str!("../barrier/barrier.c");
const COMPILE_WITHIN: Duration = Duration::from_secs(60);
const RUN_WITHIN: Duration = Duration::from_secs(60);

/// A folder with what was compiled so far; it goes with this.
pub struct Bare {
    folder: tempfile::TempDir,
}

impl Bare {
    /// # Errors
    /// When there is no place for temporary files.
    pub fn new() -> Result<Bare> {
        Ok(Bare {
            folder: tempfile::tempdir()?,
        })
    }

    /// `MPI_Allreduce` of `bytes` bytes of f64 over `processes` processes and the loopback device, by TCP.
    ///
    /// # Errors
    /// When it does not compile, fails, or takes too long.
    pub async fn all_reduce(
        &self,
        processes: usize,
        bytes: usize,
        calls: usize,
    ) -> Result<Latency> {
        let program = self.compile("mpicc", "allreduce", ALL_REDUCE).await?;
        let mut command = child::command("mpirun");
        command.args([
            "--oversubscribe",
            "--allow-run-as-root",
            "-np",
            &processes.to_string(),
        ]);
        for (name, value) in [
            // More processes than cores: those that wait must not keep the core.
            ("mpi_yield_when_idle", "1"),
            ("pml", "ob1"),
            ("btl", "tcp,self"),
            ("btl_tcp_if_include", "lo"),
            ("oob_tcp_if_include", "lo"),
        ] {
            command.args(["--mca", name, value]);
        }
        command
            .arg(program)
            .args([bytes.to_string(), calls.to_string()]);
        latency(&child::output(command, RUN_WITHIN).await?)
    }

    /// Barriers of `processes` processes with `threads` threads; one and one is a bare round trip of a byte.
    ///
    /// # Errors
    /// When it does not compile, fails, or takes too long.
    pub async fn barrier(
        &self,
        processes: usize,
        threads: usize,
        window: Window,
    ) -> Result<Latency> {
        let program = self.compile("cc", "barrier", BARRIER).await?;
        let mut command = child::command(program);
        command.args([processes.to_string(), threads.to_string()]);
        command.arg(window.duration.as_millis().to_string());
        latency(&child::output(command, RUN_WITHIN).await?)
    }

    async fn compile(&self, compiler: &str, name: &str, source: &str) -> Result<PathBuf> {
        let program = self.folder.path().join(name);
        if !program.exists() {
            let file = program.with_extension("c");
            std::fs::write(&file, source)?;
            let mut command = child::command(compiler);
            command
                .args(["-O2", "-pthread", "-o"])
                .arg(&program)
                .arg(&file);
            child::output(command, COMPILE_WITHIN).await?;
        }
        Ok(program)
    }
}

fn latency(output: &str) -> Result<Latency> {
    let mut words = output.split_whitespace().map(str::parse);
    let mut next = || -> Result<f64> {
        let word = words
            .next()
            .with_context(|| format!("expected two times, found {output:?}"))?;
        Ok(word?)
    };
    Ok(Latency {
        p50_us: next()?,
        p99_us: next()?,
    })
}
