//! `--detach`: the same command again, as a process in the background that no terminal takes with it.

use crate::cmd::record::all::short;
use crate::cmd::record::{Facts, Folder, State, own};
use crate::cmd::ui::{self, Ui};
use crate::cmd::{EndedSo, Exit};
use crate::net::token::JobId;
use anyhow::Context;
use serde_json::json;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a job is watched while it is prepared, so that what is wrong with it is said here and now.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(10);

/// Starts it and says which job it is.
pub fn start(ui: &Ui, json: bool) -> anyhow::Result<()> {
    let id = JobId::random();
    let folder = Folder::of(id)?;
    folder.make()?;
    let mut child = match launch(&folder, id) {
        Ok(child) => child,
        Err(error) => {
            folder.delete()?;
            return Err(error);
        }
    };
    let watched = watch(&folder, &mut child);
    let (facts, ended) = watched.with_context(|| format!("job {id} may run in the background"))?;
    let is_under_way = facts.as_ref().is_some_and(|facts| facts.under_way);
    if let Some(status) = ended.filter(|status| !status.success() && !is_under_way) {
        return Err(failure(&folder, facts.is_some(), status));
    }
    let state = facts.as_ref().map_or(State::Running, Facts::state);
    let id = id.to_string();
    if json {
        ui::print_json(&json!({
            "job": id,
            "state": state.to_string(),
            "pid": child.id(),
            "folder": folder.path().display().to_string(),
        }))?;
    } else {
        ui::print(format!("{id}\n"))?;
    }
    let id = short(&id);
    ui.say(match state {
        State::Running => format!(
            "job {id} runs in the background; next: lswitch attach {id} (or: lswitch result {id} --wait, lswitch cancel {id})"
        ),
        state => format!("job {id} has ended: {state}; next: lswitch result {id}"),
    });
    Ok(())
}

fn launch(folder: &Folder, id: JobId) -> anyhow::Result<Child> {
    let open = |path: &Path| {
        let file = File::options().create(true).append(true).open(path);
        file.with_context(|| format!("cannot make {}", path.display()))
    };
    let binary = std::env::current_exe().context("this program's own file is not to be found")?;
    let words: Vec<OsString> = std::env::args_os().collect();
    Command::new(&binary)
        .arg0(words.first().unwrap_or(&binary.clone().into_os_string()))
        .args(arguments(words.into_iter().skip(1).collect(), id))
        .stdin(Stdio::null())
        .stdout(open(&folder.output())?)
        .stderr(open(&folder.log())?)
        .spawn()
        .with_context(|| format!("cannot start {} in the background", binary.display()))
}

/// The command line with the job's id, which stands right behind the word `invoke`: nothing before it takes a value.
fn arguments(mut words: Vec<OsString>, id: JobId) -> Vec<OsString> {
    let invoke = words.iter().position(|word| word == "invoke");
    let at = invoke.expect("this is what was parsed") + 1;
    words.insert(at, format!("{}{id}", own::DETACHED_AS).into());
    words
}

/// Waits until its workers are being started, it has ended, or patience has.
fn watch(
    folder: &Folder,
    child: &mut Child,
) -> anyhow::Result<(Option<Facts>, Option<ExitStatus>)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // In this order: what it has written before it ended is read.
        let ended = child.try_wait()?;
        let facts = folder.read()?;
        // One that has said how it ended is about to.
        let goes_on = facts
            .as_ref()
            .is_some_and(|facts| facts.under_way && facts.end.is_none());
        if ended.is_some() || goes_on || Instant::now() > deadline {
            return Ok((facts, ended));
        }
        thread::sleep(LOOK);
    }
}

/// The error of a job that has failed before it was under way, after what it said.
fn failure(folder: &Folder, is_recorded: bool, status: ExitStatus) -> anyhow::Error {
    let log = fs::read(folder.log()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    ui::echo(false, log.trim_end());
    if !is_recorded && let Err(error) = folder.delete() {
        tracing::warn!("{error:#}");
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    EndedSo {
        exit: code.unwrap_or(Exit::Failed as u8),
        said: match code {
            Some(_) => None,
            None => Some(format!("the job's process ended at once: {status}")),
        },
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_goes_where_the_command_line_takes_it_and_the_program_does_not_see_it() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let found = arguments(
            words("-q invoke map --detach --exec echo -- invoke {}"),
            JobId([0xab; 16]),
        );
        let id = "ab".repeat(16);
        assert_eq!(
            found,
            words(&format!(
                "-q invoke --detached-as={id} map --detach --exec echo -- invoke {{}}"
            ))
        );
    }
}
