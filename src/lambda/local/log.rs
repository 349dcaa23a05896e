//! What an environment writes: cut into lines, shown to the caller's sink, its last part kept for `X-Amz-Log-Result`.
//!
//! Both output streams are one pipe, so their order is exact. Whoever holds the log can read what the process has
//! written so far; the answer of an invocation thus carries all that was written before it.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::invocation::RequestId;

/// How much of its log an invocation's caller gets: Lambda's 4 KB.
const TAIL_BYTES_MAX: usize = 4096;
/// Longer lines are cut, so that a worker that never ends its line fills no memory.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// What one answer waits for at most; a worker that writes without end must not hold up the others.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// One line that an environment, or Lambda on its behalf, wrote.
#[derive(Debug, Clone, Copy)]
pub struct LogLine<'a> {
    /// The function's name.
    pub function: &'a str,
    /// Which of the server's environments, counted from 1.
    pub environment: u64,
    /// The line, without its end.
    pub text: &'a str,
}

impl fmt::Display for LogLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}[{}]: {}",
            self.function, self.environment, self.text
        )
    }
}

/// Gets every line as it arrives. It is called from the server's tasks and holds them up, so it should return soon.
pub type LogSink = Arc<dyn Fn(LogLine<'_>) + Send + Sync>;

/// The numbers of a REPORT line.
pub(super) struct Report<'a> {
    pub(super) duration: Duration,
    pub(super) init: Option<Duration>,
    pub(super) memory_mb: u32,
    pub(super) memory_used_mb: u64,
    /// The error's type, if the invocation failed.
    pub(super) error_type: Option<&'a str>,
}

/// The output of one environment.
pub(super) struct Log {
    function: String,
    environment: u64,
    sink: Option<LogSink>,
    /// The non-blocking reading end.
    pipe: Option<File>,
    line: Vec<u8>,
    tail: VecDeque<u8>,
    /// The invocation whose START was written and whose END was not.
    open: Option<RequestId>,
    /// Before the first START everything belongs to the first invocation.
    started: bool,
}

impl Log {
    pub(super) fn new(function: &str, environment: u64, sink: Option<LogSink>) -> Log {
        Log {
            function: function.to_owned(),
            environment,
            sink,
            pipe: None,
            line: Vec::new(),
            tail: VecDeque::new(),
            open: None,
            started: false,
        }
    }

    /// From now on [`Log::drain`] reads this; it has to be non-blocking.
    pub(super) fn attach(&mut self, pipe: File) {
        self.pipe = Some(pipe);
    }

    /// Writes START. The tail begins here, for the first invocation at the environment's start.
    pub(super) fn start(&mut self, request: &RequestId) {
        self.drain();
        if self.started {
            self.tail.clear();
        }
        self.started = true;
        self.open = Some(request.clone());
        self.write_line(&format!("START RequestId: {request} Version: $LATEST"));
    }

    /// A line of Lambda's own.
    pub(super) fn note(&mut self, text: &str) {
        self.drain();
        self.end_line();
        self.write_line(text);
    }

    /// Writes END and REPORT, and returns the tail.
    pub(super) fn finish(&mut self, request: &RequestId, report: &Report<'_>) -> Vec<u8> {
        self.drain();
        self.end_line();
        if self.open.take().is_none() {
            self.start(request);
            self.open = None;
        }
        self.write_line(&format!("END RequestId: {request}"));
        let ms = report.duration.as_secs_f64() * 1e3;
        let used_mb = report.memory_used_mb;
        let mut text = format!(
            "REPORT RequestId: {request}\tDuration: {ms:.2} ms\tBilled Duration: {:.0} ms\tMemory Size: {} MB\t\
             Max Memory Used: {used_mb} MB\t",
            ms.ceil(),
            report.memory_mb,
        );
        if let Some(init) = report.init {
            text.push_str(&format!(
                "Init Duration: {:.2} ms\t",
                init.as_secs_f64() * 1e3
            ));
        }
        match report.error_type {
            Some("Sandbox.Timedout") => text.push_str("Status: timeout\t"),
            Some(error_type) => {
                text.push_str(&format!("Status: error\tError Type: {error_type}\t"))
            }
            None => {}
        }
        self.write_line(&text);
        self.tail.iter().copied().collect()
    }

    /// Reads what the process has written so far.
    pub(super) fn drain(&mut self) {
        let Some(mut pipe) = self.pipe.take() else {
            return;
        };
        let mut buffer = [0; 8192];
        let mut drained = 0;
        while drained < DRAIN_BYTES_MAX
            && let Ok(bytes @ 1..) = pipe.read(&mut buffer)
        {
            self.push(&buffer[..bytes]);
            drained += bytes;
        }
        self.pipe = Some(pipe);
    }

    /// Takes output as it comes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = &bytes[..bytes.len().min(LINE_BYTES_MAX - self.line.len())];
            match room.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.line.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    self.emit();
                }
                None => {
                    self.line.extend_from_slice(room);
                    bytes = &bytes[room.len()..];
                    if self.line.len() == LINE_BYTES_MAX {
                        self.emit();
                    }
                }
            }
        }
    }

    /// Ends a line that the process left open.
    pub(super) fn end_line(&mut self) {
        if !self.line.is_empty() {
            self.emit();
        }
    }

    fn write_line(&mut self, text: &str) {
        self.end_line();
        self.line.extend_from_slice(text.as_bytes());
        self.emit();
    }

    fn emit(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.tail.extend(line.iter().chain(b"\n"));
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES_MAX);
        self.tail.drain(..surplus);
        if let Some(sink) = &self.sink {
            let text = String::from_utf8_lossy(&line);
            sink(LogLine {
                function: &self.function,
                environment: self.environment,
                text: text.trim_end(),
            });
        }
        self.line = line;
        self.line.clear();
    }
}

/// When, in the way Lambda writes it in its own lines and in names of log streams.
pub(super) fn utc_date(now: SystemTime) -> (i64, u32, u32) {
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    // Days since 0000-03-01, in eras of 400 years: the calendar repeats exactly, and leap days come last in their year.
    let days =
        i64::try_from(seconds / 86_400).expect("2^64 seconds are fewer than 2^63 days") + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (
        year,
        u32::try_from(month).expect("it is 1 to 12"),
        u32::try_from(day).expect("it is 1 to 31"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn report<'a>() -> Report<'a> {
        let duration = Duration::from_micros(1500);
        Report {
            duration,
            init: None,
            memory_mb: 128,
            memory_used_mb: 7,
            error_type: None,
        }
    }

    fn request() -> RequestId {
        RequestId("id-1".to_owned())
    }

    #[test]
    fn the_first_tail_has_the_start_of_the_environment_and_the_next_only_its_own_lines() {
        let mut log = Log::new("f", 1, None);
        log.push(b"init\n");
        log.start(&request());
        log.push(b"one");
        let first = String::from_utf8(log.finish(&request(), &report())).expect("it is text");
        assert_eq!(
            first,
            "init\nSTART RequestId: id-1 Version: $LATEST\none\nEND RequestId: id-1\nREPORT RequestId: id-1\t\
             Duration: 1.50 ms\tBilled Duration: 2 ms\tMemory Size: 128 MB\tMax Memory Used: 7 MB\t\n"
        );
        log.start(&request());
        let second = String::from_utf8(log.finish(&request(), &report())).expect("it is text");
        assert!(second.starts_with("START"), "{second}");
    }

    #[test]
    fn an_invocation_that_never_started_is_framed_all_the_same() {
        let mut log = Log::new("f", 1, None);
        log.push(b"cannot import app\n");
        let failed = Report {
            error_type: Some("Runtime.ExitError"),
            ..report()
        };
        let tail = String::from_utf8(log.finish(&request(), &failed)).expect("it is text");
        assert!(
            tail.starts_with("cannot import app\nSTART RequestId: id-1"),
            "{tail}"
        );
        assert!(
            tail.ends_with("Status: error\tError Type: Runtime.ExitError\t\n"),
            "{tail}"
        );
    }

    #[test]
    fn lines_and_tail_are_bounded() {
        let lengths = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lengths);
        let sink: LogSink = Arc::new(move |line: LogLine<'_>| {
            assert_eq!(line.to_string(), format!("f[9]: {}", line.text));
            seen.lock()
                .expect("no test thread panics while it holds this")
                .push(line.text.len());
        });
        let mut log = Log::new("f", 9, Some(sink));
        log.push(&vec![b'x'; 2 * LINE_BYTES_MAX + 5]);
        log.push(b"y\n\nz\n");
        assert_eq!(
            *lengths.lock().expect("as above"),
            [LINE_BYTES_MAX, LINE_BYTES_MAX, 6, 0, 1]
        );
        assert_eq!(log.finish(&request(), &report()).len(), TAIL_BYTES_MAX);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let date = |seconds| utc_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(951_782_400), (2000, 2, 29));
        assert_eq!(date(4_107_542_399), (2100, 2, 28));
        assert_eq!(date(4_107_542_400), (2100, 3, 1));
    }
}
