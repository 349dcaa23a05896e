//! Reduction by key: lines travel to the rank whose range their key is in ([`crate::job::sort::shuffle`]), and each rank runs a program
//! that reads its own in order, so that lines of one key, what stands ahead of the first tab, follow each other. It is what Hadoop calls streaming.

use crate::job::command::Command;
use crate::job::command::exec::{self, Exec, Feed};
use crate::job::context::Context;
use crate::job::items;
use crate::job::output::{Target, part_key};
use crate::job::program::{Program, ProgramError};
use crate::job::sort::part::{Part, Parts, WrittenPart};
use crate::job::sort::record::Format;
use crate::job::sort::shuffle::Shuffle;
use crate::job::sort::{exchange, extension, finish_part};
use crate::net::codec::{self, REPORT_MAX};
use crate::private;
use crate::store::StoreError;
use crate::store::sealed::SealedKey;
use serde::{Deserialize, Serialize};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The program that workers of a reduction run.
pub const PROGRAM: Program = Program {
    name: "reduce",
    run: reduce,
};

/// How the lines lie.
pub const FORMAT: Format = Format::Grouped;

/// What the driver asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arguments {
    /// What is read: the list of inputs in the job's store.
    pub inputs: SealedKey,
    /// The program that each rank runs once, unless there are no lines for it.
    pub command: Command,
    /// Where the parts go.
    pub output: Target,
    /// Bytes of memory that a rank may take for lines; with more it writes them to the job's store.
    pub memory: u64,
    /// What the names of spilled runs begin with.
    pub spill: String,
    /// How often a rank runs its program again after it has failed.
    pub retries: u32,
}

/// What a rank did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reduced {
    /// Lines that it read, and their bytes.
    pub read: (u64, u64),
    /// The part that it wrote: what its program printed.
    pub part: WrittenPart,
    /// Bytes that it wrote to the job's store since they did not fit into memory.
    pub spilled: u64,
    /// How often its program failed.
    pub failures: u32,
    /// Seconds that it sampled, exchanged, and ran its program.
    pub seconds: [f64; 3],
}

fn reduce(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    let arguments: Arguments = context.arguments()?;
    let invocation = context.remaining();
    let program = arguments.command.prepare(context)?;
    let store = context.store()?;
    let mut output = Parts::open(context, &arguments.output)?;
    let inputs = store.get_sealed(&arguments.inputs)?;
    let inputs = items::list_from_bytes(&inputs).map_err(ProgramError::new)?;
    let place = (&store, &arguments.spill[..]);
    let (mut shuffle, seconds) = exchange(context, &inputs, FORMAT, place, arguments.memory)?;
    let exchanged = Instant::now();
    let name = part_key(context.rank(), extension(FORMAT));
    let mut failures = 0;
    let part = loop {
        if shuffle.is_empty() {
            break output.create(&name)?;
        }
        let (within, _) = arguments.command.within(context, invocation);
        let folder = private::temporary_folder("lswitch-reduce-")
            .map_err(|error| ProgramError::new(format!("cannot make a folder: {error}")))?;
        let exec = Exec {
            program: program.clone().into(),
            arguments: arguments.command.arguments.iter().map(Into::into).collect(),
            folder: folder.path().into(),
            environment: vec![
                ("LSWITCH_RANK", context.rank().to_string().into()),
                ("LSWITCH_SIZE", context.size().to_string().into()),
                ("LSWITCH_FAILURES", failures.to_string().into()),
                ("TMPDIR", folder.path().into()),
            ],
            within,
        };
        match run(
            context,
            &exec,
            &program,
            &mut shuffle,
            output.create(&name)?,
        )? {
            Ok(part) => break part,
            Err(what) if failures >= arguments.retries => return Err(ProgramError::new(what)),
            Err(_) => failures += 1,
        }
    };
    let reduced = Reduced {
        read: shuffle.read(),
        part: finish_part(context, &mut output, part)?,
        spilled: shuffle.spilled(),
        failures,
        seconds: [seconds[0], seconds[1], exchanged.elapsed().as_secs_f64()],
    };
    codec::encode::<REPORT_MAX>(&reduced).map_err(ProgramError::new)
}

/// Runs the program once. The inner error is the program's, in words.
fn run(
    context: &Context,
    exec: &Exec,
    program: &Path,
    shuffle: &mut Shuffle,
    mut part: Part,
) -> Result<Result<Part, String>, ProgramError> {
    let mut broken: Option<StoreError> = None;
    let mut damaged: Option<ProgramError> = None;
    let feed = |stdin: &mut Feed| {
        let mut stdin = BufWriter::with_capacity(1 << 16, stdin);
        let mut stopped: Option<io::Error> = None;
        let given = shuffle.in_order(|line| {
            stdin.write_all(line).map_err(|error| {
                stopped = Some(error);
                ProgramError::new("it reads no further")
            })
        });
        match (stopped, given) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => {
                let words = error.to_string();
                if matches!(error, ProgramError::Store(StoreError::Damaged { .. })) {
                    damaged = Some(error);
                }
                Ok(Err(words))
            }
            (None, Ok(())) => stdin.flush().map(Ok),
        }
    };
    let mut take = |bytes: &[u8]| {
        part.push(bytes).map_err(|error| {
            let words = error.to_string();
            broken = Some(error);
            words
        })
    };
    let ran = exec::run(exec, feed, &mut take, &|| context.has_ended());
    if let Some(error) = broken {
        return Err(error.into());
    }
    // Another run of the program would not get these lines either.
    if let Some(error) = damaged {
        return Err(error);
    }
    let name = program.file_name().map(PathBuf::from).unwrap_or_default();
    let name = name.display();
    let ran = match ran {
        Ok(ran) => ran,
        Err(error) => return Ok(Err(format!("cannot start {name}: {error}"))),
    };
    let Some(problem) = ran.input.or_else(|| ran.end.problem(exec.within)) else {
        return Ok(Ok(part));
    };
    let said = String::from_utf8_lossy(&ran.stderr);
    let said: Vec<&str> = said.lines().collect();
    let said = said[said.len().saturating_sub(LINES)..].join("\n  | ");
    let mut words = format!("{name} failed: {problem}");
    if !said.is_empty() {
        words += "\n  | ";
        words += &said;
    }
    Ok(Err(words))
}

/// Lines of a failed program's stderr that are told.
const LINES: usize = 10;
