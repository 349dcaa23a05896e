//! Any program on many items: each worker takes the next item, runs the program on it, and gives back what it printed.
//!
//! [`code`] is how the program gets to the workers, [`exec`] how it is run; [`run`] is the driver's side. Who gets what is the farm's affair ([`crate::job::farm`]).

pub mod code;
pub mod exec;
pub mod run;

use crate::job::context::{BlockingStore, BlockingWriter, Context};
use crate::job::farm::schedule::Ending;
use crate::job::farm::worker::{Ended, serve};
use crate::job::items::Item;
use crate::job::items::read::Sources;
use crate::job::program::{Program, ProgramError};
use crate::net::codec;
use bytes::Bytes;
use code::Code;
use exec::{End, Exec};

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

/// The program that workers of a map run.
pub const PROGRAM: Program = Program {
    name: "map",
    run: work,
};

/// Outputs up to this many bytes go to the driver over the wire; longer ones through the store.
pub const INLINE_MAX: usize = 64 << 10;

/// What of a program's arguments stands for the item.
pub const PLACEHOLDER: &str = "{}";

/// Kept of an invocation's time for giving back the last answer; of a short one an eighth.
const MARGIN: Duration = Duration::from_secs(5);

/// A program that has had this share of an invocation and is not done will not be done in another one either.
const WHOLE: f64 = 0.8;

/// What all items have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arguments {
    /// The program, if it travels.
    pub code: Option<Code>,
    /// Otherwise its name or path on the workers.
    pub program: String,
    /// Its arguments; [`PLACEHOLDER`] in one stands for the item, which is on its standard input if none has it.
    pub arguments: Vec<String>,
    /// Milliseconds that it may run on one item.
    pub within_ms: Option<u64>,
    /// The most that it may print for one item, in bytes.
    pub output_max: u64,
    /// The store for outputs, absolute; without it short ones go to the driver.
    pub output: Option<String>,
    /// What the names of long outputs in the job's store begin with.
    pub prefix: String,
}

/// What became of one item, as its worker tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What went wrong, if anything did.
    pub problem: Option<String>,
    /// The program's exit code, if it ended by itself.
    pub exit: Option<i32>,
    /// What it printed.
    pub output: Output,
    /// The last of what it wrote to stderr.
    pub stderr: Vec<u8>,
}

/// What a program printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// This.
    Inline(Vec<u8>),
    /// So many bytes under this key: in the store for outputs if there is one, else in the job's.
    Stored {
        /// The key.
        key: String,
        /// How many bytes.
        bytes: u64,
    },
}

const ANSWER_MAX: usize = INLINE_MAX + exec::STDERR_TAIL + 64 * 1024;

impl Answer {
    fn to_bytes(&self) -> Bytes {
        codec::encode::<ANSWER_MAX>(self)
            .expect("each part is bounded")
            .into()
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Answer, String> {
        codec::decode::<Answer, ANSWER_MAX>(bytes)
            .map_err(|error| format!("an answer of a worker does not decode: {error}"))
    }

    fn of_problem(problem: String) -> Answer {
        Answer {
            problem: Some(problem),
            exit: None,
            output: Output::Inline(Vec::new()),
            stderr: Vec::new(),
        }
    }
}

fn work(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let arguments: Arguments = context.arguments()?;
    let program = match &arguments.code {
        Some(code) => code.fetch(context)?,
        None => local(&arguments.program)?,
    };
    code::check(&program).map_err(ProgramError::new)?;
    let output = match &arguments.output {
        Some(location) => context.open_store(location)?,
        None => context.store()?,
    };
    let mut worker = Worker {
        arguments,
        program,
        output,
        sources: Sources::default(),
        invocation: context.remaining(),
    };
    serve(context, |context, task| {
        let item = Item::from_bytes(&task.payload).map_err(ProgramError::new)?;
        let answer = worker.run(context, task.number, &item, task.failures)?;
        Ok(answer.map(|answer| Ended {
            ending: match answer.problem {
                None => Ending::Done,
                Some(_) => Ending::Failed,
            },
            payload: answer.to_bytes(),
        }))
    })?;
    Ok(Vec::new())
}

/// A program that is on this worker already.
fn local(name: &str) -> Result<PathBuf, ProgramError> {
    let found = if name.contains('/') {
        Some(PathBuf::from(name)).filter(|path| path.is_file())
    } else {
        code::find(name)
    };
    found.ok_or_else(|| ProgramError::new(format!("there is no program {name} on the workers")))
}

struct Worker {
    arguments: Arguments,
    program: PathBuf,
    output: BlockingStore,
    sources: Sources,
    /// How long it may run in all.
    invocation: Duration,
}

impl Worker {
    /// Runs the program on an item. Errors are this worker's; what is wrong with the item is in the answer. No answer: the
    /// worker's time is up, and not the item's.
    fn run(
        &mut self,
        context: &Context,
        number: u64,
        item: &Item,
        failures: u32,
    ) -> Result<Option<Answer>, ProgramError> {
        let input = match self.sources.open(context, item) {
            Ok(input) => input,
            Err(error) => return Ok(Some(Answer::of_problem(error.to_string()))),
        };
        let wrong = |error: std::io::Error| {
            ProgramError::new(format!("cannot make a folder for an item: {error}"))
        };
        // Each item finds an empty folder, and leaves nothing to the next.
        let folder = tempfile::tempdir().map_err(wrong)?;
        let takes_argument = self
            .arguments
            .arguments
            .iter()
            .any(|argument| argument.contains(PLACEHOLDER));
        let mut as_argument = OsString::new();
        if takes_argument {
            as_argument = match (item, input.path()) {
                (Item::Text(text), _) => OsString::from_vec(text.clone()),
                (_, Some(path)) => path.into(),
                _ => {
                    let path = folder.path().join("item");
                    let mut file = std::fs::File::create(&path).map_err(wrong)?;
                    match input.write_to(&mut file) {
                        Ok(Ok(())) => {}
                        Ok(Err(what)) => return Ok(Some(Answer::of_problem(what))),
                        Err(error) => {
                            return Ok(Some(Answer::of_problem(format!(
                                "it does not fit into the worker's temporary folder: {error}"
                            ))));
                        }
                    }
                    path.into()
                }
            };
        }
        let arguments = self.arguments.arguments.iter();
        let margin = MARGIN.min(self.invocation / 8);
        let left = context.remaining().saturating_sub(margin);
        let within = self
            .arguments
            .within_ms
            .map_or(left, |within| Duration::from_millis(within).min(left));
        let exec = Exec {
            program: self.program.clone().into(),
            arguments: arguments
                .map(|argument| fill(argument, &as_argument))
                .collect(),
            folder: folder.path().into(),
            environment: vec![
                ("LSWITCH_ITEM", number.to_string().into()),
                ("LSWITCH_FAILURES", failures.to_string().into()),
                ("TMPDIR", folder.path().into()),
            ],
            within,
        };
        let mut sink = Sink {
            always: self.arguments.output.is_some(),
            most: self.arguments.output_max,
            // A copy of the item elsewhere, or another try, does not write the same one, unless that is its place.
            key: match self.arguments.output {
                Some(_) => format!("{number:08}"),
                None => format!("{}{number:08}-{}", self.arguments.prefix, context.rank()),
            },
            store: &self.output,
            taken: 0,
            gathered: Vec::new(),
            writer: None,
        };
        let feed = |stdin: &mut exec::Feed| {
            if takes_argument {
                return Ok(Ok(()));
            }
            let mut stdin = std::io::BufWriter::new(stdin);
            let outcome = input.write_to(&mut stdin)?;
            stdin.flush().map(|()| outcome)
        };
        let ran = match exec::run(&exec, feed, &mut |bytes| sink.take(bytes)) {
            Ok(ran) => ran,
            Err(error) => {
                let name = self.program.display();
                return Ok(Some(Answer::of_problem(format!(
                    "cannot start {name}: {error}"
                ))));
            }
        };
        if ran.end == End::TimedOut
            && left == within
            && within.as_secs_f64() < WHOLE * self.invocation.as_secs_f64()
        {
            return Ok(None);
        }
        let problem = ran.input.or_else(|| ran.end.problem(within));
        let output = match sink.finish(problem.is_none()) {
            Ok(output) => output,
            Err(what) => return Ok(Some(Answer::of_problem(what))),
        };
        Ok(Some(Answer {
            problem,
            exit: match ran.end {
                End::Exited(status) => status.code(),
                _ => None,
            },
            output,
            stderr: ran.stderr,
        }))
    }
}

/// An argument with the item in its place.
fn fill(argument: &str, item: &std::ffi::OsStr) -> OsString {
    let mut pieces = argument.split(PLACEHOLDER);
    let mut filled = OsString::from(pieces.next().unwrap_or_default());
    for piece in pieces {
        filled.push(item);
        filled.push(piece);
    }
    filled
}

/// Where a program's output goes: into memory while it is short, else into the store as it comes.
struct Sink<'a> {
    /// To the store whatever its length.
    always: bool,
    most: u64,
    key: String,
    store: &'a BlockingStore,
    taken: u64,
    gathered: Vec<u8>,
    writer: Option<BlockingWriter>,
}

/// Bytes that go to the store at once.
const PIECE: usize = 1 << 20;

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.taken += bytes.len() as u64;
        if self.taken > self.most {
            return Err(format!("it printed more than {} bytes", self.most));
        }
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE {
            self.store_gathered()?;
        }
        Ok(())
    }

    fn store_gathered(&mut self) -> Result<(), String> {
        let writer = match self.writer.take() {
            Some(writer) => Ok(writer),
            None => self.store.writer(&self.key),
        };
        let piece = std::mem::take(&mut self.gathered);
        let written = writer.and_then(|writer| writer.write(piece.into()));
        self.writer = Some(written.map_err(|error| format!("cannot store its output: {error}"))?);
        Ok(())
    }

    /// Names the output, if it is `wanted`.
    fn finish(mut self, wanted: bool) -> Result<Output, String> {
        if !wanted {
            // What was stored of it is dropped with the writer.
            self.gathered.truncate(INLINE_MAX);
            return Ok(Output::Inline(self.gathered));
        }
        if self.writer.is_none() && !self.always && self.gathered.len() <= INLINE_MAX {
            return Ok(Output::Inline(self.gathered));
        }
        self.store_gathered()?;
        let writer = self.writer.take().expect("it was just written to");
        writer
            .finish()
            .map_err(|error| format!("cannot store its output: {error}"))?;
        Ok(Output::Stored {
            key: self.key,
            bytes: self.taken,
        })
    }
}
