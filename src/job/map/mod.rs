//! Any program on many items: each worker takes the next item, runs the program on it, and gives back what it printed.
//!
//! [`run`] is the driver's side, [`gather`] where outputs go that something else goes on with, [`journal`] what is
//! done already, [`identity`] what must be the same for that to hold, [`json`] how bytes stand in JSON. What the items are is in
//! [`crate::job::items`], how the program runs in [`crate::job::command`]; who gets what is the farm's affair ([`crate::job::farm`]).

pub mod gather;
pub mod identity;
pub mod journal;
pub mod json;
pub mod run;

use crate::job::command::Command;
use crate::job::command::exec::{self, End, Exec};
use crate::job::context::{BlockingSealedWriter, BlockingStore, Context};
use crate::job::farm::schedule::Ending;
use crate::job::farm::worker::{Ended, serve};
use crate::job::items::Item;
use crate::job::items::read::{Input, Sources};
use crate::job::output::{Completed, OutputFolder, OutputPart, Target, item_key};
use crate::job::program::{Program, ProgramError};
use crate::net::codec;
use crate::private;
use crate::store::StoreError;
use crate::store::sealed::Seal;
use bytes::Bytes;

use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
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

/// A program that has had this share of an invocation and is not done will not be done in another one either.
const WHOLE: f64 = 0.8;

/// What all items have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arguments {
    /// The program. [`PLACEHOLDER`] in an argument stands for the item, which is on its standard input if none has it; an argument
    /// that is only that stands for each item of a batch.
    pub command: Command,
    /// The most that it may print for one item, in bytes.
    pub output_max: u64,
    /// The store for outputs, absolute; without it short ones go to the driver.
    pub output: Option<String>,
    /// The key of the job's claim on the store for outputs.
    pub claim: Option<String>,
    /// What the names of long outputs in the job's store begin with.
    pub prefix: String,
    /// The name of the output in the store for outputs, if there is one item; numbers otherwise.
    pub name: Option<String>,
    /// What became of the items of an earlier map, which the program finds in a file: an object of the job's store.
    pub report: Option<Item>,
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
    /// The output cannot be stored, and neither can those of other items: the bucket is missing, or the credentials are refused.
    pub is_unstorable: bool,
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
        /// The CRC32C of the bytes.
        crc32c: u32,
        /// The seal of an output in the job's store, which is read again; one in the store for outputs is a plain file.
        seal: Option<Seal>,
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
            is_unstorable: false,
        }
    }

    fn of_unstored(unstored: Unstored) -> Answer {
        Answer {
            is_unstorable: unstored.is_permanent,
            ..Answer::of_problem(unstored.problem)
        }
    }
}

fn work(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let arguments: Arguments = context.arguments()?;
    let program = arguments.command.prepare(context)?;
    let output = match &arguments.output {
        Some(location) => {
            let target = Target {
                store: location.clone(),
                prefix: String::new(),
                claim: arguments.claim.clone(),
            };
            let folder = OutputFolder::open(context, &target)?;
            Place::Output(folder.trusting_for(CLAIM_TRUSTED))
        }
        None => Place::Own(context.store()?),
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
            ending: match (&answer.problem, answer.is_unstorable) {
                (None, _) => Ending::Done,
                (Some(_), false) => Ending::Failed,
                (Some(_), true) => Ending::FailedForGood,
            },
            payload: answer.to_bytes(),
        }))
    })?;
    Ok(Vec::new())
}

/// How long a look for the job's claim is good for: short items would double the requests to the store otherwise.
const CLAIM_TRUSTED: Duration = Duration::from_secs(2);

/// Where outputs are stored.
enum Place {
    /// In the store for outputs, each under the name of its item.
    Output(OutputFolder),
    /// In the job's store, if they are long.
    Own(BlockingStore),
}

struct Worker {
    arguments: Arguments,
    program: PathBuf,
    output: Place,
    sources: Sources,
    /// How long it may run in all.
    invocation: Duration,
}

impl Worker {
    /// True if the item is among the arguments, and not on the standard input.
    fn takes_argument(&self) -> bool {
        let mut arguments = self.arguments.command.arguments.iter();
        arguments.any(|argument| argument.contains(PLACEHOLDER))
    }

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
        let folder = private::temporary_folder("lswitch-item-").map_err(wrong)?;
        let takes_argument = self.takes_argument();
        let mut as_arguments = Vec::new();
        if takes_argument {
            as_arguments = match as_argument(item, &input, folder.path()) {
                Ok(arguments) => arguments,
                Err(what) => return Ok(Some(Answer::of_problem(what))),
            };
        }
        let mut environment: Vec<(&'static str, OsString)> = vec![
            ("LSWITCH_ITEM", number.to_string().into()),
            ("LSWITCH_FAILURES", failures.to_string().into()),
            ("TMPDIR", folder.path().into()),
        ];
        if let (Some((from, to)), None) = (item.range(), &self.arguments.report) {
            environment.push(("LSWITCH_FROM", from.to_string().into()));
            environment.push(("LSWITCH_TO", to.to_string().into()));
        }
        if let Some(report) = &self.arguments.report {
            let report = self.sources.open(context, report)?;
            match save(&report, folder.path().join(REPORT)) {
                Ok(path) => environment.push(("LSWITCH_REPORT", path)),
                Err(what) => return Ok(Some(Answer::of_problem(what))),
            }
        }
        let (within, is_all) = self.arguments.command.within(context, self.invocation);
        let mut arguments = Vec::new();
        for argument in &self.arguments.command.arguments {
            match argument == PLACEHOLDER {
                true => arguments.extend_from_slice(&as_arguments),
                false => arguments.push(fill(argument, &as_arguments)),
            }
        }
        let exec = Exec {
            program: self.program.clone().into(),
            arguments,
            folder: folder.path().into(),
            environment,
            within,
        };
        let mut sink = Sink {
            most: self.arguments.output_max,
            // A copy of the item elsewhere, or another try, does not write the same one, unless that is its place.
            key: match (&self.arguments.output, &self.arguments.name) {
                (Some(_), Some(name)) => name.clone(),
                (Some(_), None) => item_key(number),
                (None, _) => format!("{}{number:08}-{}", self.arguments.prefix, context.rank()),
            },
            place: &mut self.output,
            taken: 0,
            crc32c: 0,
            gathered: Vec::new(),
            writer: None,
            is_refused: false,
        };
        let feed = |stdin: &mut exec::Feed| {
            if takes_argument {
                return Ok(Ok(()));
            }
            let mut stdin = std::io::BufWriter::new(stdin);
            let outcome = input.write_to(&mut stdin)?;
            stdin.flush().map(|()| outcome)
        };
        let ran = match exec::run(&exec, feed, &mut |bytes| sink.take(bytes), &|| {
            context.has_ended()
        }) {
            Ok(ran) => ran,
            Err(error) => {
                let name = self.program.display();
                return Ok(Some(Answer::of_problem(format!(
                    "cannot start {name}: {error}"
                ))));
            }
        };
        if ran.end == End::TimedOut
            && is_all
            && within.as_secs_f64() < WHOLE * self.invocation.as_secs_f64()
        {
            return Ok(None);
        }
        let problem = ran.input.or_else(|| ran.end.problem(within));
        if let (Some(problem), true) = (&problem, sink.is_refused) {
            return Ok(Some(Answer::of_unstored(Unstored {
                problem: problem.clone(),
                is_permanent: true,
            })));
        }
        let output = match sink.finish(problem.is_none()) {
            Ok(output) => output,
            Err(unstored) => return Ok(Some(Answer::of_unstored(unstored))),
        };
        Ok(Some(Answer {
            problem,
            exit: match ran.end {
                End::Exited(status) => status.code(),
                _ => None,
            },
            output,
            stderr: ran.stderr,
            is_unstorable: false,
        }))
    }
}

/// What a program that finds a report is told by its name.
const REPORT: &str = "report.jsonl";

/// Each of what an item consists of as an argument: a line or a number as it is, a whole file by its path, and anything else as the path of a
/// file in `folder`. In words why that cannot be.
fn as_argument(item: &Item, input: &Input, folder: &Path) -> Result<Vec<OsString>, String> {
    let (items, inputs) = match (item, input) {
        (Item::Range { from, to }, _) => {
            return Ok((*from..*to)
                .map(|number| number.to_string().into())
                .collect());
        }
        (Item::Batch { items, .. }, Input::Batch(inputs)) => (&items[..], &inputs[..]),
        _ => (std::slice::from_ref(item), std::slice::from_ref(input)),
    };
    let each = items.iter().zip(inputs).enumerate();
    each.map(|(number, one)| match (one, one.1.path()?) {
        ((Item::Text(text), _), _) => Ok(OsString::from_vec(text.clone())),
        (_, Some(path)) => Ok(path.into()),
        ((_, input), None) => save(
            input,
            folder.join(match number {
                0 => "item".to_string(),
                _ => format!("item-{number}"),
            }),
        ),
    })
    .collect()
}

/// Writes an input into a file, and gives its path.
fn save(input: &Input, path: PathBuf) -> Result<OsString, String> {
    let full = |error| format!("it does not fit into the worker's temporary folder: {error}");
    let mut file = std::fs::File::create(&path).map_err(full)?;
    input.write_to(&mut file).map_err(full)??;
    Ok(path.into())
}

/// An argument with the item in its place; of several, the first.
fn fill(argument: &str, items: &[OsString]) -> OsString {
    let item = items.first().map_or(OsStr::new(""), |item| item);
    let mut pieces = argument.split(PLACEHOLDER);
    let mut filled = OsString::from(pieces.next().unwrap_or_default());
    for piece in pieces {
        filled.push(item);
        filled.push(piece);
    }
    filled
}

/// Why an output was not stored.
struct Unstored {
    problem: String,
    /// No other output can be stored either.
    is_permanent: bool,
}

impl From<StoreError> for Unstored {
    fn from(error: StoreError) -> Unstored {
        Unstored {
            is_permanent: error.is_permanent(),
            problem: format!("cannot store its output: {error}"),
        }
    }
}

impl From<ProgramError> for Unstored {
    fn from(error: ProgramError) -> Unstored {
        match error {
            ProgramError::Store(error) => error.into(),
            // The job holds its output no longer.
            other => Unstored {
                problem: format!("cannot store its output: {other}"),
                is_permanent: true,
            },
        }
    }
}

/// Where a program's output goes: into memory while it is short and not for the store of outputs, else into the store as it comes.
struct Sink<'a> {
    most: u64,
    key: String,
    place: &'a mut Place,
    taken: u64,
    crc32c: u32,
    gathered: Vec<u8>,
    writer: Option<StoredOutput>,
    /// The store refused what it would refuse of every other item too.
    is_refused: bool,
}

/// An output on its way into a store.
enum StoredOutput {
    /// For the user.
    File(OutputPart),
    /// For the job itself.
    Sealed(BlockingSealedWriter),
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
            self.store_gathered().map_err(|unstored| {
                self.is_refused = unstored.is_permanent;
                unstored.problem
            })?;
        }
        Ok(())
    }

    fn store_gathered(&mut self) -> Result<(), Unstored> {
        let mut writer = match (self.writer.take(), &*self.place) {
            (Some(writer), _) => writer,
            (None, Place::Output(folder)) => StoredOutput::File(folder.create(&self.key)?),
            (None, Place::Own(store)) => StoredOutput::Sealed(store.sealed_writer(&self.key)?),
        };
        let piece = std::mem::take(&mut self.gathered);
        self.crc32c = crc32c::crc32c_append(self.crc32c, &piece);
        match &mut writer {
            StoredOutput::File(part) => part.push(&piece)?,
            StoredOutput::Sealed(writer) => writer.push(&piece)?,
        }
        self.writer = Some(writer);
        Ok(())
    }

    /// Names the output, if it is `wanted`.
    fn finish(mut self, wanted: bool) -> Result<Output, Unstored> {
        if !wanted {
            // What was stored of it is dropped with the writer.
            self.gathered.truncate(INLINE_MAX);
            return Ok(Output::Inline(self.gathered));
        }
        let is_short = self.writer.is_none() && self.gathered.len() <= INLINE_MAX;
        if is_short && matches!(self.place, Place::Own(_)) {
            return Ok(Output::Inline(self.gathered));
        }
        self.store_gathered()?;
        let writer = self.writer.take().expect("it was just written to");
        match (writer, self.place) {
            (StoredOutput::File(part), Place::Output(folder)) => {
                // A copy of the item elsewhere may have been first: then its output is the item's, and is what the manifest vouches for.
                let (Completed::Own(file) | Completed::Other(file)) = folder.complete(part)?;
                Ok(Output::Stored {
                    key: file.name,
                    bytes: file.bytes,
                    crc32c: file.crc32c,
                    seal: None,
                })
            }
            (StoredOutput::Sealed(writer), _) => Ok(Output::Stored {
                seal: Some(writer.finish()?),
                key: self.key,
                bytes: self.taken,
                crc32c: self.crc32c,
            }),
            (StoredOutput::File(_), Place::Own(_)) => unreachable!("files go to outputs alone"),
        }
    }
}
