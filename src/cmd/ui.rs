//! How commands speak: data to stdout, everything else to stderr, progress only on a terminal.

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// See the module.
pub struct Ui {
    quiet: bool,
}

impl Ui {
    /// `quiet` leaves only errors on stderr.
    pub fn new(quiet: bool) -> Ui {
        Ui { quiet }
    }

    /// True if only errors are to be said.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Says something to the person, on stderr.
    pub fn say(&self, words: impl Display) {
        echo(self.quiet, words);
    }

    /// A bar over `length` bytes.
    pub fn bytes_bar(&self, what: &str, length: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg:12} [{bar:30}] {bytes}/{total_bytes} {eta}")
            .expect("the template is valid");
        self.bar(
            ProgressBar::new(length).with_style(style.progress_chars("=> ")),
            what,
        )
    }

    /// A bar over `length` things.
    pub fn count_bar(&self, what: &str, length: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg:12} [{bar:30}] {pos}/{len}")
            .expect("the template is valid");
        self.bar(
            ProgressBar::new(length).with_style(style.progress_chars("=> ")),
            what,
        )
    }

    /// A line that moves while something of unknown length goes on.
    pub fn spinner(&self, what: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is valid");
        let bar = self.bar(ProgressBar::new_spinner().with_style(style), what);
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    fn bar(&self, bar: ProgressBar, what: &str) -> ProgressBar {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let hidden = self.quiet || dumb || !io::stderr().is_terminal();
        bar.set_draw_target(if hidden {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        });
        bar.set_message(what.to_string());
        bar
    }
}

/// Writes a line to stderr, unless only errors are to be said.
pub fn echo(quiet: bool, words: impl Display) {
    if !quiet {
        // Whoever listened may be gone, which is no reason to fail.
        let _ = writeln!(io::stderr(), "{words}");
    }
}

/// Writes data to stdout.
///
/// # Errors
/// When stdout is closed; [`is_closed_pipe`] knows the harmless case.
pub fn print(data: impl Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{data}")?;
    Ok(out.flush()?)
}

/// Writes a table of two columns to stdout.
///
/// # Errors
/// As [`print()`].
pub fn print_facts(facts: &[(&str, String)]) -> anyhow::Result<()> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: String = facts
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect();
    print(lines)
}

/// Writes a table with a head to stdout; the last column is as long as it is.
///
/// # Errors
/// As [`print()`].
pub fn print_table(head: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let mut widths: Vec<usize> = head.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let head = head.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&head).chain(rows) {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, &width)| format!("{cell:width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    print(text)
}

/// Writes a JSON value and a line end to stdout.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    print(format!("{value}\n"))
}

/// Bytes for people.
pub fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

/// Seconds for people.
pub fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// A length of time for people, in its two largest units.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Prints the whole chain of causes once.
pub fn print_error(error: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "lswitch: {}", message(error));
}

/// The whole chain of causes.
pub fn message(error: &anyhow::Error) -> String {
    let mut message = error.to_string();
    // Causes that the message already tells are not repeated.
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !message.contains(&cause) {
            message.push_str(": ");
            message.push_str(&cause);
        }
    }
    message
}

/// True if the reader of stdout went away, which ends a command without an error: `lswitch ... | head`.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
