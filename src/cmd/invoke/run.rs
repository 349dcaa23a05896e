//! `lswitch invoke run`: a program of the user's own crate, on every worker.

use super::fleet::FleetArgs;
use super::plan::Plan;
use crate::cmd::ui::{self, Ui, print, print_json};
use crate::cmd::{UsageError, block_on};
use crate::job::driver::{JobOutcome, JobSpec};
use crate::job::program;
use crate::net::token::JobId;
use anyhow::Context;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Run a program of your own on every worker, and print what each returns
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  cargo run --example programs -- invoke run ring --workers 4
  cargo run -- invoke run hello --workers 8 --event hello.json --json

  lswitch invoke run --local-function hello.toml --workers 4 --event hello.json

A program in Rust is part of the binary: a crate that depends on lswitch calls lswitch::main(&[...]) with it, and its
binary is this command with more programs. See examples/programs. In any other language it is a handler of a function
that joins through a client, such as the one in python/; it finds the JSON at the top of its event.")]
pub struct RunArgs {
    /// The program; the only one, if there is only one. A function of your own gets it as a name and may ignore it
    program: Option<String>,

    /// A file with JSON that the program gets as its arguments; - is standard input
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,

    /// Let workers send and receive Python's pickles, which run code
    #[arg(long)]
    allow_pickle: bool,

    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) fleet: FleetArgs,
}

impl RunArgs {
    /// True if standard input is its event.
    pub fn reads_standard_input(&self) -> bool {
        self.event.as_deref() == Some(Path::new("-"))
    }

    /// Runs the job and prints its results.
    pub fn run(&self, ui: &Ui, id: JobId) -> anyhow::Result<()> {
        self.fleet.check()?;
        let program = self.program()?;
        let ranks = self.fleet.workers()?.ok_or_else(|| {
            let name = &program;
            UsageError(format!("say how many workers run {name}: --workers N"))
        })?;
        let arguments = match &self.event {
            Some(path) => read_event(path)?,
            None => Value::Null,
        };
        block_on(async {
            let store = self.fleet.open_store("--store", &self.fleet.store).await?;
            let plan = Plan {
                program: &program,
                workers: ranks,
                is_fixed: true,
                json: self.json,
            };
            self.fleet.plan(&plan).await?;
            let spec = JobSpec {
                id,
                program: program.clone(),
                more: self.more(&arguments)?,
                arguments,
                ranks,
                ranks_per_pack: self.fleet.workers_per_function,
                levels: self.fleet.levels(),
                store: store.url().into(),
                timeout: self.fleet.timeout(),
            };
            let job = self.fleet.drive(ui, &spec, "measure").await?;
            if self.json {
                return print_json(&self.summary(&program, &job));
            }
            let mut text = String::new();
            for (rank, result) in job.results.iter().enumerate() {
                let shown = match shown(result) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                writeln!(text, "{rank}\t{shown}").expect("a string takes it");
            }
            print(&text)?;
            ui.say(format!(
                "launch {}, run {}; {} messages and {} through the switch",
                ui::seconds(job.launch),
                ui::seconds(job.run),
                job.messages,
                ui::bytes(job.bytes)
            ));
            Ok(())
        })
    }

    /// What handlers find at the top of their events beside what every worker is told.
    fn more(&self, arguments: &Value) -> Result<Map<String, Value>, UsageError> {
        if self.fleet.functions()?.is_none() {
            return Ok(Map::new());
        }
        let mut more = match arguments {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        };
        // What handlers of SoftwareForwarder are given; the way is in the event itself.
        for name in ["server_url", "url"] {
            more.entry(name).or_insert_with(|| "lswitch:".into());
        }
        more.insert("allow_pickle".into(), self.allow_pickle.into());
        Ok(more)
    }

    fn program(&self) -> Result<String, UsageError> {
        if self.fleet.functions()?.is_some() {
            // What it means is the function's affair.
            let name = self.program.as_deref();
            return Ok(name.unwrap_or("handler").to_string());
        }
        let own = program::own();
        let names: Vec<&str> = own.iter().map(|program| program.name).collect();
        let names = names.join(", ");
        let wrong = |what: String| Err(UsageError(what));
        match (&self.program, own) {
            (_, []) => wrong(
                "this binary has no programs of its own; a crate that calls lswitch::main(&[...]) has (see examples/programs), or name a function: --local-function"
                    .into(),
            ),
            (None, [only]) => Ok(only.name.into()),
            (None, _) => wrong(format!("say which program to run: {names}")),
            (Some(name), _) => match own.iter().find(|program| program.name == name) {
                Some(program) => Ok(program.name.into()),
                None => wrong(format!("there is no program {name:?}; there is: {names}")),
            },
        }
    }

    fn summary(&self, program: &str, job: &JobOutcome) -> Value {
        json!({
            "program": program,
            "job": job.job,
            "lswitch": crate::RELEASE,
            "workers": job.results.len(),
            "workers_per_function": self.fleet.workers_per_function,
            "messages": job.messages,
            "bytes": job.bytes,
            "usage": self.fleet.usage(),
            "seconds": { "launch": job.launch.as_secs_f64(), "run": job.run.as_secs_f64() },
            "results": job.results.iter().map(|result| shown(result)).collect::<Vec<Value>>(),
        })
    }
}

/// What a rank returned, as JSON if it is; else as text, and what is none as `{"hex": ...}`.
fn shown(result: &[u8]) -> Value {
    serde_json::from_slice(result).unwrap_or_else(|_| match std::str::from_utf8(result) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "hex": crate::random::to_hex(result) }),
    })
}

/// The JSON of a file, or of standard input if it is called -.
pub(super) fn read_event(path: &Path) -> anyhow::Result<Value> {
    let name = path.display();
    let mut text = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_end(&mut text),
        false => std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut text)),
    };
    read.with_context(|| format!("cannot read {name}"))?;
    serde_json::from_slice(&text)
        .map_err(|error| UsageError(format!("{name} is no JSON: {error}")).into())
}
