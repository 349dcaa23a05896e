//! The live line of a job whose ranks work together.

use crate::cmd::ui::{self, Ui};
use crate::job::driver::JobEvent;

/// The live line: started, joined, superstep, measure, bytes.
pub(super) struct ProgressLine {
    bar: indicatif::ProgressBar,
    ranks: u32,
    packs: u32,
    measure: String,
    joined: u32,
    begun: bool,
    step: Option<(u64, f64)>,
    bytes: u64,
    left: u32,
}

impl ProgressLine {
    /// Nothing has happened.
    pub(super) fn new(ui: &Ui, ranks: u32, packs: u32, measure: &str) -> ProgressLine {
        let bar = ui.spinner("starting");
        ProgressLine {
            bar,
            ranks,
            packs,
            measure: measure.into(),
            joined: 0,
            begun: false,
            step: None,
            bytes: 0,
            left: 0,
        }
    }

    /// Shows what has happened.
    pub(super) fn update(&mut self, event: JobEvent) {
        match event {
            JobEvent::Created { .. } => {}
            JobEvent::Joined(ranks) => self.joined = ranks,
            JobEvent::Begun => self.begun = true,
            JobEvent::Progress { step, measure } => self.step = Some((step, measure)),
            JobEvent::Traffic(traffic) => self.bytes = traffic.bytes,
            JobEvent::Left(packs) => self.left = packs,
        }
        let started = if self.joined > 0 {
            "started"
        } else {
            "starting"
        };
        let mut line = format!(
            "{started} {}  joined {}/{}",
            self.packs, self.joined, self.ranks
        );
        if let Some((step, measure)) = self.step {
            line += &format!("  superstep {step}  {} {measure:.3e}", self.measure);
        } else if self.begun {
            line += "  loading";
        }
        line += &format!("  moved {}", ui::bytes(self.bytes));
        if self.left > 0 {
            line += &format!("  done {}/{}", self.left, self.packs);
        }
        self.bar.set_message(line);
    }

    /// Takes it away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
