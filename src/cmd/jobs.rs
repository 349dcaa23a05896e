//! `lswitch jobs`: what runs, what has run, and how it ended.

use crate::cmd::record::all::{self, digits_shown};
use crate::cmd::record::{Facts, now_ms};
use crate::cmd::ui::{self, Ui, print_json, print_table};
use serde_json::{Value, json};
use std::time::Duration;

/// How many are listed without --all.
const NEWEST: usize = 20;

/// Letters of a command that are shown, together with those that say there are more.
const COMMAND_MAX: usize = 72;

/// List this machine's jobs: what runs, what has ended and how
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  lswitch invoke --detach map --exec factor --items 1000..2000 -- {}
  lswitch jobs
  lswitch jobs --all --json

The newest come first. Other commands take a job by the first digits of its id, at least 4: attach, result, cancel. A job
is lost when its driver is gone without having said how it ended. Records are in $LSWITCH_HOME/jobs; see docs/JOBS.md.")]
pub struct Jobs {
    /// List all, not only the newest 20
    #[arg(long)]
    all: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Jobs {
    /// Prints the list.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<()> {
        let records = all::records()?;
        let ids: Vec<&str> = records.iter().map(|(_, facts)| &facts.id[..]).collect();
        let digits = digits_shown(&ids);
        let count = if self.all { records.len() } else { NEWEST };
        let shown = records.iter().take(count).map(|(_, facts)| facts);
        if self.json {
            let jobs: Vec<Value> = shown.map(as_json).collect();
            return print_json(&json!({ "jobs": jobs, "more": records.len() - jobs.len() }));
        }
        if records.is_empty() {
            ui.say("no jobs yet; next: lswitch invoke map --exec factor --items 1000..1010 -- {}");
            return Ok(());
        }
        let rows: Vec<Vec<String>> = shown.map(|facts| row(facts, digits)).collect();
        let more = records.len() - rows.len();
        print_table(&["ID", "JOB", "STATE", "BEGAN", "TOOK", "COMMAND"], &rows)?;
        if more > 0 {
            ui.say(format!("and {more} more: lswitch jobs --all"));
        }
        Ok(())
    }
}

fn row(facts: &Facts, digits: usize) -> Vec<String> {
    let ago = Duration::from_millis(now_ms().saturating_sub(facts.began_ms));
    vec![
        facts.id.chars().take(digits).collect(),
        facts.program.clone(),
        facts.state().to_string(),
        format!("{} ago", ui::duration(ago)),
        facts.took().map_or("?".into(), ui::duration),
        shortened(&facts.command()),
    ]
}

/// The beginning of a command, in one line.
fn shortened(command: &str) -> String {
    let line = command.replace(char::is_control, " ");
    match line.chars().count() > COMMAND_MAX {
        true => line.chars().take(COMMAND_MAX - 3).collect::<String>() + "...",
        false => line,
    }
}

/// What `--json` tells of a job.
fn as_json(facts: &Facts) -> Value {
    let end = facts.end.as_ref();
    json!({
        "job": facts.id,
        "program": facts.program,
        "state": facts.state().to_string(),
        "began_ms": facts.began_ms,
        "ended_ms": end.map(|end| end.at_ms),
        "seconds": facts.took().map(|took| took.as_secs_f64()),
        "exit": end.map(|end| end.exit),
        "error": end.and_then(|end| end.error.as_ref()),
        "detached": facts.detached,
        "pid": facts.driver.pid,
        "arguments": facts.arguments,
        "folder": facts.folder,
        "store": facts.store,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_is_cut_and_stays_in_its_line() {
        assert_eq!(shortened("a\nb"), "a b");
        let long = "\u{e4}".repeat(COMMAND_MAX);
        assert_eq!(shortened(&long), long);
        let cut = shortened(&(long + "x"));
        assert_eq!(cut.chars().count(), COMMAND_MAX);
        assert!(cut.ends_with("\u{e4}..."));
    }
}
