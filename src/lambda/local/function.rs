//! A local function: the command that serves it and the limits it has, from code or from a small TOML file.
//!
//! The limits are AWS's, so that a function that is accepted here is not refused there. What AWS does to functions and
//! a job would rather not have, such as slow starts and events that come twice, happens here if the function asks for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::INIT_LIMIT;
use super::error::LocalError;
use crate::lambda::limits::{self, TIMEOUT_S};

/// A function's file is a few lines; anything longer is some other file.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Lambda's default handler, memory and time-out are for tiny functions; ours are what a pack wants: one whole core.
const DEFAULT_MEMORY_MB: u32 = 1769;
const DEFAULT_TIMEOUT_S: u64 = 900;
/// Lambda's limit, and its default, for how often an event is tried again; here it is none unless it is asked for.
const EVENT_RETRIES_MAX: u32 = 2;
/// Lambda's wait before the first retry. The second comes after twice that.
const EVENT_RETRY: Duration = Duration::from_secs(60);
/// Lambda's limit, and its default, for how long an event may wait. Its least is a minute; tests want less.
const EVENT_AGE_MAX: Duration = Duration::from_secs(21_600);
const EVENT_AGE_MIN: Duration = Duration::from_secs(1);

/// A function that the local Lambda can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFunction {
    /// What callers invoke: letters, digits, `-` and `_`, at most 64.
    pub name: String,
    /// The program that speaks the Runtime API, and its arguments.
    pub command: Vec<String>,
    /// Passed on as `_HANDLER`; it means something to the runtime only.
    pub handler: String,
    /// The memory above which an environment is killed, 128 to 10,240 MB.
    pub memory_mb: u32,
    /// The time after which an invocation is killed, 1 to 900 s in whole seconds.
    pub timeout: Duration,
    /// The folder in which the command starts and which `LAMBDA_TASK_ROOT` names; without it, an empty one per environment.
    pub task_root: Option<PathBuf>,
    /// The function's own variables, which win over those that are passed on from this process.
    pub environment: BTreeMap<String, String>,
    /// An environment's first invocation is handed over only so long after its start, 0 to 10 s. On AWS that is some
    /// 100 ms and more; the default is 0.
    pub cold_start: Duration,
    /// False if an environment ends with its first answer, so that each invocation has a new one. The default is true.
    pub reuse: bool,
    /// Environments of this function at once; calls above it are refused with 429, events wait. Unlike on AWS nothing
    /// is taken from the others for it. By default there is only the limit of the local Lambda.
    pub reserved_concurrency: Option<u32>,
    /// How often an event that failed is tried again, 0 to 2. AWS's default is 2; here it is 0, as lswitch sets it there
    /// for its own functions.
    pub event_retries: u32,
    /// How long after its failure the first retry comes; the second comes after twice that. 0 to 6 h; the default is
    /// AWS's minute.
    pub event_retry: Duration,
    /// An event that still waits when it is so old is dropped, 1 s to 6 h. The default is AWS's 6 h.
    pub event_age: Duration,
    /// What an environment of this function has between SIGTERM and SIGKILL when it is ended and has no extensions, which
    /// have a grace of their own. On AWS, and by default, it has none: it is killed at once.
    pub stop_grace: Duration,
    /// Of so many events one is delivered twice, with one request id, as AWS may do it at any time. 0, the default, is
    /// none.
    pub event_twice_every: u32,
}

/// Without a name or a command, and with nothing that hurts.
impl Default for LocalFunction {
    fn default() -> LocalFunction {
        LocalFunction {
            name: String::new(),
            command: Vec::new(),
            handler: String::new(),
            memory_mb: DEFAULT_MEMORY_MB,
            timeout: Duration::from_secs(DEFAULT_TIMEOUT_S),
            task_root: None,
            environment: BTreeMap::new(),
            cold_start: Duration::ZERO,
            reuse: true,
            reserved_concurrency: None,
            event_retries: 0,
            event_retry: EVENT_RETRY,
            event_age: EVENT_AGE_MAX,
            stop_grace: Duration::ZERO,
            event_twice_every: 0,
        }
    }
}

/// A function's file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionFile {
    command: Vec<String>,
    #[serde(default)]
    handler: String,
    memory_mb: Option<u32>,
    timeout_s: Option<u64>,
    task_root: Option<PathBuf>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    cold_start_ms: Option<u64>,
    reuse: Option<bool>,
    reserved_concurrency: Option<u32>,
    event_retries: Option<u32>,
    event_retry_s: Option<u64>,
    event_age_s: Option<u64>,
    event_twice_every: Option<u32>,
}

impl LocalFunction {
    /// Reads one function from `NAME.toml`. Relative paths in it (`task_root`, a command with a `/`) start at the file's folder.
    ///
    /// # Errors
    /// Says which file, and which line or key, is wrong and what would be right.
    pub fn load(file: &Path) -> Result<LocalFunction, LocalError> {
        let read_error = |source| LocalError::Read {
            path: file.to_owned(),
            source,
        };
        if std::fs::metadata(file).map_err(read_error)?.len() > FILE_BYTES_MAX {
            let too_long = format!("the file is longer than {FILE_BYTES_MAX} bytes");
            return Err(read_error(std::io::Error::other(too_long)));
        }
        let text = std::fs::read_to_string(file).map_err(read_error)?;
        let written: FunctionFile = toml::from_str(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            LocalError::FunctionFile {
                file: file.to_owned(),
                line,
                problem: error.message().replace('\n', " "),
            }
        })?;
        let folder = std::path::absolute(file)
            .map_err(read_error)?
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default();
        let mut command = written.command;
        if let Some(program) = command.first_mut()
            && program.contains('/')
        {
            *program = folder.join(&*program).to_string_lossy().into_owned();
        }
        let usual = LocalFunction::default();
        let seconds = |written: Option<u64>, usual| written.map_or(usual, Duration::from_secs);
        let function = LocalFunction {
            name: file
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            command,
            handler: written.handler,
            memory_mb: written.memory_mb.unwrap_or(usual.memory_mb),
            timeout: seconds(written.timeout_s, usual.timeout),
            task_root: written.task_root.map(|root| folder.join(root)),
            environment: written.environment,
            cold_start: written
                .cold_start_ms
                .map_or(usual.cold_start, Duration::from_millis),
            reuse: written.reuse.unwrap_or(usual.reuse),
            reserved_concurrency: written.reserved_concurrency,
            event_retries: written.event_retries.unwrap_or(usual.event_retries),
            event_retry: seconds(written.event_retry_s, usual.event_retry),
            event_age: seconds(written.event_age_s, usual.event_age),
            stop_grace: usual.stop_grace,
            event_twice_every: written.event_twice_every.unwrap_or(usual.event_twice_every),
        };
        function.check_as(&file.display().to_string())?;
        Ok(function)
    }

    /// Reads every `NAME.toml` of a folder, by name. Other files are left alone; a missing folder is an error.
    ///
    /// # Errors
    /// The first file that [`LocalFunction::load`] refuses, or a folder that cannot be read.
    pub fn load_all(folder: &Path) -> Result<Vec<LocalFunction>, LocalError> {
        let read_error = |source| LocalError::Read {
            path: folder.to_owned(),
            source,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(read_error)? {
            let path = entry.map_err(read_error)?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                files.push(path);
            }
        }
        files.sort();
        files.iter().map(|file| LocalFunction::load(file)).collect()
    }

    /// Checks AWS's limits. [`LocalFunction::load`] and [`LocalLambda::start`](super::LocalLambda::start) do so.
    ///
    /// # Errors
    /// Names the first key that breaks one.
    pub fn check(&self) -> Result<(), LocalError> {
        self.check_as(&format!("{:?}", self.name))
    }

    fn check_as(&self, shown_as: &str) -> Result<(), LocalError> {
        let wrong = |key, problem: String| {
            Err(LocalError::FunctionValue {
                function: shown_as.to_owned(),
                key,
                problem,
            })
        };
        if let Err(problem) = limits::check_name(&self.name) {
            return wrong("name", problem);
        }
        if self.command.first().is_none_or(String::is_empty) {
            return wrong(
                "command",
                "it is empty; give the program and its arguments, such as [\"./worker\"]".into(),
            );
        }
        if let Err(problem) = limits::check_memory(self.memory_mb) {
            return wrong("memory_mb", problem);
        }
        if !TIMEOUT_S.contains(&self.timeout.as_secs()) || self.timeout.subsec_nanos() != 0 {
            let (least, most) = (TIMEOUT_S.start(), TIMEOUT_S.end());
            return wrong(
                "timeout_s",
                format!(
                    "{:?} is outside Lambda's {least} to {most} whole seconds",
                    self.timeout
                ),
            );
        }
        if let Err(problem) = limits::check_environment(&self.environment) {
            return wrong("environment", problem);
        }
        if self.cold_start > INIT_LIMIT {
            return wrong(
                "cold_start_ms",
                format!(
                    "{} is outside 0 to {} ms, which is what Lambda gives an environment to start",
                    self.cold_start.as_millis(),
                    INIT_LIMIT.as_millis()
                ),
            );
        }
        if self.event_retries > EVENT_RETRIES_MAX {
            return wrong(
                "event_retries",
                format!(
                    "{} is outside Lambda's 0 to {EVENT_RETRIES_MAX}",
                    self.event_retries
                ),
            );
        }
        let times = [
            ("event_retry_s", self.event_retry, Duration::ZERO),
            ("event_age_s", self.event_age, EVENT_AGE_MIN),
        ];
        for (key, time, least) in times {
            if !(least..=EVENT_AGE_MAX).contains(&time) {
                return wrong(
                    key,
                    format!(
                        "{} is outside {} to {} s, which is how long Lambda keeps an event",
                        time.as_secs_f64(),
                        least.as_secs(),
                        EVENT_AGE_MAX.as_secs()
                    ),
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, text: &str) -> Result<LocalFunction, String> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("a temporary file can be written");
        LocalFunction::load(&file).map_err(|error| {
            error
                .to_string()
                .replace(&folder.path().display().to_string(), "DIR")
        })
    }

    #[test]
    fn a_full_file_gives_a_function() {
        let text = "command = [\"./run\", \"x\"]\nhandler = \"app.main\"\nmemory_mb = 512\ntimeout_s = 3\n\
                    task_root = \"code\"\n[environment]\nA = \"b\"\n";
        let function = load("hello-1.toml", text).expect("it is a good file");
        assert_eq!(function.name, "hello-1");
        assert!(
            Path::new(&function.command[0]).is_absolute(),
            "{:?}",
            function.command
        );
        assert_eq!(
            (function.memory_mb, function.timeout),
            (512, Duration::from_secs(3))
        );
        assert!(
            function
                .task_root
                .is_some_and(|root| root.ends_with("code"))
        );
        assert_eq!(function.environment["A"], "b");
    }

    #[test]
    fn a_command_is_enough() {
        let function = load("f.toml", "command = [\"worker\"]").expect("it is a good file");
        assert_eq!(function.command, ["worker"]);
        assert_eq!(
            (function.memory_mb, function.timeout),
            (1769, Duration::from_secs(900))
        );
    }

    #[test]
    fn a_file_may_ask_for_what_hurts() {
        let text = "command = ['a']\ncold_start_ms = 300\nreuse = false\nreserved_concurrency = 0\n\
                    event_retries = 2\nevent_retry_s = 0\nevent_age_s = 60\nevent_twice_every = 10\n";
        let function = load("f.toml", text).expect("it is a good file");
        let without = LocalFunction {
            name: function.name.clone(),
            command: function.command.clone(),
            ..LocalFunction::default()
        };
        let asked = LocalFunction {
            cold_start: Duration::from_millis(300),
            reuse: false,
            reserved_concurrency: Some(0),
            event_retries: 2,
            event_retry: Duration::ZERO,
            event_age: Duration::from_secs(60),
            event_twice_every: 10,
            ..without.clone()
        };
        assert_eq!(function, asked);
        assert_eq!(load("f.toml", "command = ['a']"), Ok(without));
    }

    #[test]
    fn a_wrong_file_is_named_with_line_or_key() {
        let refusal = |name: &str, text: &str| load(name, text).expect_err("it is a bad file");
        let unknown = refusal("f.toml", "command = [\"a\"]\nmemory = 512\n");
        assert!(
            unknown.starts_with("DIR/f.toml:2: unknown field `memory`"),
            "{unknown}"
        );
        assert!(refusal("f.toml", "handler = 'a'").contains("missing field `command`"));
        assert_eq!(
            refusal("f.toml", "command = ['a']\nmemory_mb = 127"),
            "function DIR/f.toml: memory_mb: 127 is outside Lambda's 128 to 10240 MB"
        );
        assert_eq!(
            refusal("f.toml", "command = ['a']\ntimeout_s = 901"),
            "function DIR/f.toml: timeout_s: 901s is outside Lambda's 1 to 900 whole seconds"
        );
        for (line, problem) in [
            (
                "cold_start_ms = 10001",
                "cold_start_ms: 10001 is outside 0 to 10000 ms, which is what Lambda gives an environment to start",
            ),
            (
                "event_retries = 3",
                "event_retries: 3 is outside Lambda's 0 to 2",
            ),
            (
                "event_retry_s = 21601",
                "event_retry_s: 21601 is outside 0 to 21600 s, which is how long Lambda keeps an event",
            ),
            (
                "event_age_s = 0",
                "event_age_s: 0 is outside 1 to 21600 s, which is how long Lambda keeps an event",
            ),
        ] {
            assert_eq!(
                refusal("f.toml", &format!("command = ['a']\n{line}")),
                format!("function DIR/f.toml: {problem}")
            );
        }
        let negative = refusal("f.toml", "command = ['a']\nevent_retry_s = -1");
        assert!(negative.starts_with("DIR/f.toml:2: "), "{negative}");
        assert!(
            refusal("a b.toml", "command = ['a']").contains("name: \"a b\" is no function name")
        );
        assert!(refusal("f.toml", "command = []").contains("command: it is empty"));
        let reserved = refusal("f.toml", "command = ['a']\n[environment]\n_HANDLER = 'b'");
        assert!(
            reserved.ends_with("environment: _HANDLER is set by Lambda itself; use another name"),
            "{reserved}"
        );
    }

    #[test]
    fn a_folder_gives_its_toml_files_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for (name, text) in [
            ("b.toml", "command = ['b']"),
            ("a.toml", "command = ['a']"),
            ("notes.txt", "no"),
        ] {
            std::fs::write(folder.path().join(name), text)
                .expect("a temporary file can be written");
        }
        let functions = LocalFunction::load_all(folder.path()).expect("both are good");
        assert_eq!(
            functions
                .iter()
                .map(|function| function.name.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        let missing = LocalFunction::load_all(&folder.path().join("none"))
            .expect_err("there is no such folder");
        assert!(
            missing
                .to_string()
                .contains("a local function is a file NAME.toml"),
            "{missing}"
        );
    }
}
