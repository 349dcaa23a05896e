//! A local function: the command that serves it and the limits it has, from code or from a small TOML file.
//!
//! The limits are AWS's, so that a function that is accepted here is not refused there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::error::LocalError;
use crate::lambda::limits::{self, TIMEOUT_S};

/// A function's file is a few lines; anything longer is some other file.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Lambda's default handler, memory and time-out are for tiny functions; ours are what a pack wants: one whole core.
const DEFAULT_MEMORY_MB: u32 = 1769;
const DEFAULT_TIMEOUT_S: u64 = 900;
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
}

/// A function's file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionFile {
    command: Vec<String>,
    #[serde(default)]
    handler: String,
    #[serde(default = "default_memory_mb")]
    memory_mb: u32,
    #[serde(default = "default_timeout_s")]
    timeout_s: u64,
    task_root: Option<PathBuf>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

fn default_memory_mb() -> u32 {
    DEFAULT_MEMORY_MB
}

fn default_timeout_s() -> u64 {
    DEFAULT_TIMEOUT_S
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
        let function = LocalFunction {
            name: file
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            command,
            handler: written.handler,
            memory_mb: written.memory_mb,
            timeout: Duration::from_secs(written.timeout_s),
            task_root: written.task_root.map(|root| folder.join(root)),
            environment: written.environment,
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
        match limits::check_environment(&self.environment) {
            Ok(()) => Ok(()),
            Err(problem) => wrong("environment", problem),
        }
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
    fn a_wrong_file_is_named_with_line_or_key() {
        let refusal = |name, text| load(name, text).expect_err("it is a bad file");
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
