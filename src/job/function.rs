//! Functions of a user's own crate that a [`crate::Pool`] calls: registered by name, found by workers under it.
//!
//! A closure cannot travel; a name can. Arguments and results are encoded by the project's bincode, with a limit on each. What
//! driver and workers say to each other is in `docs/FARM.md`: a call is the name and one or more items, its answer says of
//! each item what became of it.

use crate::job::context::Context;
use crate::job::farm::message::PAYLOAD_MAX;
use crate::job::farm::schedule::Ending;
use crate::job::farm::worker::{Ended, serve};
use crate::job::pack::words_of;
use crate::job::program::{Program, ProgramError};
use crate::net::codec;
use bytes::{Buf, BufMut, Bytes};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The workers of a pool.
pub const PROGRAM: Program = Program {
    name: "call",
    run: run_worker,
};

/// The longest name of a function, in bytes.
pub const NAME_MAX: usize = 255;

/// A worker begins no further item of a call after so long: others may be idle.
const STINT: Duration = Duration::from_millis(20);

/// Bytes of results above which a worker begins no further item of a call.
const RESULTS_LEN: usize = 1 << 20;

/// Bytes ahead of an item in a call: its length.
pub(crate) const ITEM_LEN: usize = 4;

/// Bytes ahead of an item in an answer: what became of it, and the length of what follows.
const RESULT_LEN: usize = 5;

/// A function that workers know by its name, next to the programs.
///
/// ```
/// use lswitch::Function;
///
/// fn divide((dividend, divisor): (u64, u64)) -> Result<u64, String> {
///     dividend.checked_div(divisor).ok_or_else(|| "there is no quotient".into())
/// }
///
/// const DIVIDE: Function<(u64, u64), u64> = Function::new("divide", divide);
/// ```
pub struct Function<Arguments, Output, Error = String> {
    name: &'static str,
    run: Run<Arguments, Output, Error>,
}

enum Run<Arguments, Output, Error> {
    Plain(fn(Arguments) -> Result<Output, Error>),
    WithContext(fn(&Context, Arguments) -> Result<Output, Error>),
}

impl<Arguments, Output, Error> Function<Arguments, Output, Error> {
    /// A function of one value; several arguments are a tuple.
    pub const fn new(
        name: &'static str,
        run: fn(Arguments) -> Result<Output, Error>,
    ) -> Function<Arguments, Output, Error> {
        let run = Run::Plain(run);
        Function { name, run }
    }

    /// A function that wants to know where it runs: its worker's rank, the time that is left, the store.
    pub const fn with_context(
        name: &'static str,
        run: fn(&Context, Arguments) -> Result<Output, Error>,
    ) -> Function<Arguments, Output, Error> {
        let run = Run::WithContext(run);
        Function { name, run }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<Arguments, Output, Error> fmt::Debug for Function<Arguments, Output, Error> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Function({})", self.name)
    }
}

/// A [`Function`], whatever it takes and gives.
pub trait AnyFunction: sealed::Callable + Sync {}

impl<T: sealed::Callable + Sync> AnyFunction for T {}

pub(crate) mod sealed {
    use super::{Context, Verdict};

    /// What a worker does with a function.
    pub trait Callable {
        /// Its name.
        fn known_as(&self) -> &'static str;
        /// Runs it, and appends what it gives, or why it failed.
        fn call(&self, context: &Context, arguments: &[u8], to: &mut Vec<u8>) -> Verdict;
    }
}

impl<Arguments, Output, Error> sealed::Callable for Function<Arguments, Output, Error>
where
    Arguments: DeserializeOwned,
    Output: Serialize,
    Error: Display,
{
    fn known_as(&self) -> &'static str {
        self.name
    }

    fn call(&self, context: &Context, arguments: &[u8], to: &mut Vec<u8>) -> Verdict {
        let arguments = match codec::decode::<Arguments, PAYLOAD_MAX>(arguments) {
            Ok(arguments) => arguments,
            Err(error) => {
                let name = self.name;
                let what = format!(
                    "what {name} was given does not decode: {error}; is the worker of the same build?"
                );
                to.extend_from_slice(what.as_bytes());
                return Verdict::Refused;
            }
        };
        let run = AssertUnwindSafe(|| match self.run {
            Run::Plain(run) => run(arguments),
            Run::WithContext(run) => run(context, arguments),
        });
        let failed = match catch_unwind(run) {
            Ok(Ok(output)) => match codec::encode_onto(&output, to) {
                Ok(()) => return Verdict::Done,
                Err(error) => (
                    Verdict::Refused,
                    format!("what {} gave does not encode: {error}", self.name),
                ),
            },
            Ok(Err(error)) => (Verdict::Failed, error.to_string()),
            Err(panic) => (Verdict::Panicked, words_of(&*panic)),
        };
        let (verdict, words) = failed;
        to.extend_from_slice(words.as_bytes());
        verdict
    }
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has a result.
    Done,
    /// The function returned an error.
    Failed,
    /// The function panicked.
    Panicked,
    /// It cannot be called so.
    Refused,
    /// Not begun, or its result did not fit beside others: to be asked for again, with all that follow. Never the first.
    Later,
}

impl Verdict {
    fn from_byte(byte: u8) -> Option<Verdict> {
        Some(match byte {
            0 => Verdict::Done,
            1 => Verdict::Failed,
            2 => Verdict::Panicked,
            3 => Verdict::Refused,
            4 => Verdict::Later,
            _ => return None,
        })
    }
}

/// What the user's own crate has registered.
static OWN: OnceLock<Vec<&'static dyn AnyFunction>> = OnceLock::new();

/// Makes functions known to the workers that are started from this program; once in a process.
///
/// # Errors
/// When a name is empty, too long or given twice, or functions were registered before.
pub fn register(functions: &[&'static dyn AnyFunction]) -> Result<(), String> {
    for (index, function) in functions.iter().enumerate() {
        let name = function.known_as();
        if name.is_empty() || name.len() > NAME_MAX {
            let what = format!("the name {name:?} of a function is not of 1 to {NAME_MAX} bytes");
            return Err(what);
        }
        if functions[..index]
            .iter()
            .any(|other| other.known_as() == name)
        {
            return Err(format!("there are two functions that are called {name}"));
        }
    }
    OWN.set(functions.to_vec())
        .map_err(|_| "functions were registered before".into())
}

/// True once functions, be it none, were registered.
pub fn is_registered() -> bool {
    OWN.get().is_some()
}

fn own() -> &'static [&'static dyn AnyFunction] {
    OWN.get().map(|own| &own[..]).unwrap_or_default()
}

/// Begins a call: the function's name. Items follow.
pub(crate) fn begin_call(name: &str) -> Vec<u8> {
    let mut call = Vec::with_capacity(64);
    call.put_u8(name.len() as u8);
    call.extend_from_slice(name.as_bytes());
    call
}

/// Appends an item to a call.
///
/// # Errors
/// When it cannot be encoded.
pub(crate) fn put_item(call: &mut Vec<u8>, item: &impl Serialize) -> Result<(), String> {
    let at = call.len();
    call.put_u32_le(0);
    if let Err(error) = codec::encode_onto(item, call) {
        call.truncate(at);
        return Err(error.to_string());
    }
    let length = call.len() - at - ITEM_LEN;
    call[at..at + ITEM_LEN].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

/// What a call asks for: a name, and the items.
fn read_call(mut call: &[u8]) -> Option<(&str, &[u8])> {
    let length = usize::from(call.try_get_u8().ok()?);
    let (name, items) = call.split_at_checked(length)?;
    Some((std::str::from_utf8(name).ok()?, items))
}

/// The next item.
fn next_item<'a>(items: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = items.try_get_u32_le().ok()? as usize;
    let (item, rest) = items.split_at_checked(length)?;
    *items = rest;
    Some(item)
}

/// Takes the next result off an answer.
pub(crate) fn next_result(answer: &mut Bytes) -> Option<(Verdict, Bytes)> {
    let verdict = Verdict::from_byte(answer.try_get_u8().ok()?)?;
    let length = answer.try_get_u32_le().ok()? as usize;
    (length <= answer.len()).then(|| (verdict, answer.split_to(length)))
}

fn run_worker(context: &mut Context) -> Result<Vec<u8>, ProgramError> {
    serve(context, |context, given| {
        let ended = match read_call(&given.payload) {
            Some((name, items)) => call(context, name, items),
            None => Err("the driver sent a call that this worker does not understand".into()),
        };
        Ok(Some(ended.unwrap_or_else(|what| Ended {
            ending: Ending::FailedForGood,
            payload: what.into(),
        })))
    })?;
    Ok(Vec::new())
}

/// Runs the items of a call, as far as one stint goes.
fn call(context: &Context, name: &str, mut items: &[u8]) -> Result<Ended, String> {
    let function = own().iter().find(|function| function.known_as() == name);
    let function = function.ok_or_else(|| unknown(name))?;
    let mut results = Vec::new();
    let mut begun = None;
    let mut over = false;
    while !items.is_empty() {
        let item =
            next_item(&mut items).ok_or("the driver sent a call that ends within an item")?;
        let at = results.len();
        results.put_slice(&[0; RESULT_LEN]);
        // A lone item is run whatever the clock says, and without looking at it.
        let is_over = |begun: &mut Option<Instant>| {
            let is_first = begun.is_none();
            let begun = begun.get_or_insert_with(Instant::now);
            !is_first && (at > RESULTS_LEN || begun.elapsed() > STINT)
        };
        let alone = at == 0 && items.is_empty();
        over |= !alone && is_over(&mut begun);
        let mut verdict = match over {
            true => Verdict::Later,
            false => function.call(context, item, &mut results),
        };
        let length = results.len() - at - RESULT_LEN;
        let whole = RESULT_LEN + length;
        if results.len() > PAYLOAD_MAX {
            results.truncate(at + RESULT_LEN);
            if whole > PAYLOAD_MAX {
                verdict = Verdict::Refused;
                let what = format!(
                    "the result of {name} has {length} bytes, over the limit of {}; write long results to the store",
                    PAYLOAD_MAX - RESULT_LEN
                );
                results.extend_from_slice(what.as_bytes());
            } else {
                verdict = Verdict::Later;
                over = true;
            }
        }
        let length = results.len() - at - RESULT_LEN;
        results[at] = verdict as u8;
        results[at + 1..at + RESULT_LEN].copy_from_slice(&(length as u32).to_le_bytes());
    }
    Ok(Ended::done(results))
}

fn unknown(name: &str) -> String {
    let known: Vec<&str> = own().iter().map(|function| function.known_as()).collect();
    let known = match &known[..] {
        [] => "it has none; functions are given to lswitch::init".to_string(),
        known => format!("it has: {}", known.join(", ")),
    };
    format!(
        "this worker (lswitch {}) has no function {name:?}; {known}",
        crate::RELEASE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: ()) -> Result<(), String> {
        Ok(())
    }

    const NOTHING: Function<(), ()> = Function::new("nothing", nothing);
    const NAMELESS: Function<(), ()> = Function::new("", nothing);

    #[test]
    fn names_are_there_and_different() {
        let error = register(&[&NOTHING, &NOTHING]).unwrap_err();
        assert!(
            error.contains("two functions that are called nothing"),
            "{error}"
        );
        assert!(
            register(&[&NAMELESS])
                .unwrap_err()
                .contains("is not of 1 to")
        );
    }

    #[test]
    fn calls_are_read_as_they_were_written_and_damaged_ones_are_none() {
        let mut whole = begin_call("add");
        put_item(&mut whole, &7u32).unwrap();
        put_item(&mut whole, &"text").unwrap();
        let (name, mut items) = read_call(&whole).unwrap();
        assert_eq!(name, "add");
        assert_eq!(next_item(&mut items), Some(&[7, 0, 0, 0][..]));
        assert_eq!(next_item(&mut items).map(<[u8]>::len), Some(8 + 4));
        assert!(items.is_empty());
        for length in 0..4 {
            assert_eq!(read_call(&whole[..length]), None);
        }
        let (_, mut cut) = read_call(&whole[..10]).unwrap();
        assert_eq!(next_item(&mut cut), None);
        assert_eq!(read_call(&[1, 0xff]), None, "a name is UTF-8");
    }

    #[test]
    fn answers_that_lie_are_none() {
        let answer = [1, 2, 0, 0, 0, b'n', b'o', 9, 0, 0, 0, 0];
        let mut answer = Bytes::copy_from_slice(&answer);
        let first = next_result(&mut answer).unwrap();
        assert_eq!(first, (Verdict::Failed, Bytes::from_static(b"no")));
        assert_eq!(next_result(&mut answer), None, "there is no verdict 9");
        for lying in [&[0, 1, 0, 0, 0][..], &[0, 1], &[]] {
            assert_eq!(next_result(&mut Bytes::copy_from_slice(lying)), None);
        }
    }
}
