//! All figures of a run, as they were measured, and why some are not there.

use crate::case::{Case, Metric, System};

/// One figure.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub round: usize,
    pub case: Case,
    pub system: System,
    pub metric: Metric,
    pub value: f64,
}

/// Why a system has no figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    NotBuilt,
    /// Its program is not installed.
    Skipped,
    Failed,
}

#[derive(Default)]
pub struct Samples {
    all: Vec<Sample>,
    absences: Vec<(Case, System, Absence)>,
    notes: Vec<String>,
}

impl Samples {
    pub fn add(&mut self, sample: Sample) {
        self.all.push(sample);
    }

    pub fn absent(&mut self, case: Case, system: System, absence: Absence) {
        if !self.absences.contains(&(case, system, absence)) {
            self.absences.push((case, system, absence));
        }
    }

    /// Something to say at the end, once.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub fn all(&self) -> &[Sample] {
        &self.all
    }

    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub fn absence(&self, case: Case, system: System) -> Option<Absence> {
        let mut found = self
            .absences
            .iter()
            .filter(|(of, who, _)| (*of, *who) == (case, system));
        found.next().map(|(_, _, absence)| *absence)
    }

    pub fn value(&self, round: usize, case: Case, system: System, metric: Metric) -> Option<f64> {
        self.of(case, system, metric)
            .find(|sample| sample.round == round)
            .map(|it| it.value)
    }

    /// One figure a round.
    pub fn of(
        &self,
        case: Case,
        system: System,
        metric: Metric,
    ) -> impl Iterator<Item = Sample> + '_ {
        self.all.iter().copied().filter(move |sample| {
            (sample.case, sample.system, sample.metric) == (case, system, metric)
        })
    }

    pub fn median(&self, case: Case, system: System, metric: Metric) -> Option<f64> {
        Spread::of(self.of(case, system, metric).map(|sample| sample.value)).map(|it| it.median)
    }
}

/// The middle and the ends of some figures.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    /// `None` without figures. The middle of an even number of figures is the mean of the two in the middle.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            f64::midpoint(values[half - 1], values[half])
        };
        Some(Spread { low, median, high })
    }
}
