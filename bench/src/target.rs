//! What lswitch has to reach, and whether it does: ratios of figures of the same round, then their median.

use crate::case::{Case, Metric, System};
use crate::samples::{Absence, Samples, Spread};

/// One line of the last table.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub case: Case,
    pub metric: Metric,
    pub over: Over,
    pub bound: Bound,
}

/// What lswitch's figure is divided by.
#[derive(Debug, Clone, Copy)]
pub enum Over {
    One(System),
    /// The smaller figure of the two reference relays.
    BetterRelay,
    /// Nothing: the bound is on the largest figure itself.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// For information.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Short,
    Information,
    Absent(Absence),
}

const RELAYS: [System; 2] = [System::RelayTokio, System::RelayThreads];

/// All targets, then the lines for information.
pub fn targets() -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    use Metric::{CpuPerGigabyte, CpuPerMessage, MegabytesPerSecond, MessagesPerSecond, P50};
    use Over::{BetterRelay, Nothing, One};
    use System::{BareC, Nats, OpenMpi, Redis};
    const KIB_64: usize = 64 << 10;
    const MIB: usize = 1 << 20;
    let mut all = Vec::new();
    let mut add = |case, metric, over, bound| {
        all.push(Target {
            case,
            metric,
            over,
            bound,
        })
    };

    add(
        Case::AllToAll(64),
        MessagesPerSecond,
        One(Nats),
        AtLeast(3.0),
    );
    add(
        Case::AllToAll(64),
        MessagesPerSecond,
        One(Redis),
        AtLeast(3.0),
    );
    add(
        Case::AllToAll(1024),
        MessagesPerSecond,
        One(Nats),
        AtLeast(3.0),
    );
    add(
        Case::AllToAll(1024),
        MessagesPerSecond,
        One(Redis),
        AtLeast(2.5),
    );
    add(
        Case::AllToAll(KIB_64),
        MegabytesPerSecond,
        One(Nats),
        AtLeast(3.2),
    );
    add(
        Case::AllToAll(KIB_64),
        MegabytesPerSecond,
        One(Redis),
        AtLeast(1.8),
    );
    add(
        Case::AllToAll(MIB),
        MegabytesPerSecond,
        One(Nats),
        AtLeast(1.6),
    );
    add(
        Case::AllToAll(MIB),
        MegabytesPerSecond,
        One(Redis),
        AtLeast(1.7),
    );
    add(Case::Packs(64), MessagesPerSecond, One(Nats), AtLeast(8.0));
    add(Case::PingPong(64), P50, One(Nats), AtMost(0.55));
    add(Case::PingPong(MIB), P50, One(Nats), AtMost(0.3));
    add(Case::AllToAll(64), CpuPerMessage, BetterRelay, AtMost(0.6));
    add(
        Case::AllToAll(KIB_64),
        CpuPerGigabyte,
        BetterRelay,
        AtMost(1.0),
    );
    add(
        Case::AllToAll(MIB),
        CpuPerGigabyte,
        BetterRelay,
        AtMost(1.0),
    );
    add(
        Case::AllToAll(MIB),
        Metric::PeakMemory,
        Nothing,
        AtMost(64.0),
    );
    add(Case::AllReduce, P50, One(OpenMpi), AtMost(1.0));
    add(Case::Barrier, P50, One(BareC), AtMost(1.3));

    for relay in RELAYS {
        for size in [64, 1024, KIB_64, MIB] {
            let metric = if size < KIB_64 {
                MessagesPerSecond
            } else {
                MegabytesPerSecond
            };
            add(Case::AllToAll(size), metric, One(relay), Bound::None);
        }
        for size in [64, KIB_64, MIB] {
            add(Case::PingPong(size), P50, One(relay), Bound::None);
        }
    }
    all
}

impl Target {
    pub fn name(&self) -> String {
        let figure = format!("{}: {}", self.case.name(), self.metric.name());
        match self.over {
            Over::One(system) => format!("{figure} over {}", system.name()),
            Over::BetterRelay => format!("{figure} over the better relay"),
            Over::Nothing => figure,
        }
    }

    /// The measured ratio, or figure, over the rounds that have all it takes.
    pub fn measured(&self, samples: &Samples) -> Option<Spread> {
        let own = samples.of(self.case, System::Lswitch, self.metric);
        Spread::of(own.filter_map(|own| {
            let of = |system| samples.value(own.round, self.case, system, self.metric);
            match self.over {
                Over::One(system) => Some(own.value / of(system)?),
                Over::BetterRelay => Some(own.value / of(RELAYS[0])?.min(of(RELAYS[1])?)),
                Over::Nothing => Some(own.value),
            }
        }))
    }

    pub fn verdict(&self, samples: &Samples) -> Verdict {
        let Some(measured) = self.measured(samples) else {
            let rivals: &[System] = match &self.over {
                Over::One(system) => std::slice::from_ref(system),
                Over::BetterRelay => &RELAYS,
                Over::Nothing => &[],
            };
            let mut systems = [System::Lswitch].into_iter().chain(rivals.iter().copied());
            let absence = systems.find_map(|system| samples.absence(self.case, system));
            return Verdict::Absent(absence.unwrap_or(Absence::Failed));
        };
        let reached = match (self.bound, self.over) {
            (Bound::None, _) => return Verdict::Information,
            (Bound::AtLeast(bound), _) => measured.median >= bound,
            (Bound::AtMost(bound), Over::Nothing) => measured.high <= bound,
            (Bound::AtMost(bound), _) => measured.median <= bound,
        };
        if reached { Verdict::Ok } else { Verdict::Short }
    }
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Short => "short",
            Verdict::Information => "-",
            Verdict::Absent(Absence::NotBuilt) => "not built",
            Verdict::Absent(Absence::Skipped) => "skipped",
            Verdict::Absent(Absence::Failed) => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Sample;

    const CASE: Case = Case::AllToAll(64);

    fn target(over: Over, bound: Bound) -> Target {
        Target {
            case: CASE,
            metric: Metric::CpuPerMessage,
            over,
            bound,
        }
    }

    fn samples(rounds: &[[f64; 3]]) -> Samples {
        let mut samples = Samples::default();
        for (round, values) in rounds.iter().enumerate() {
            for (system, value) in [System::Lswitch, RELAYS[0], RELAYS[1]]
                .into_iter()
                .zip(values)
            {
                let metric = Metric::CpuPerMessage;
                samples.add(Sample {
                    round,
                    case: CASE,
                    system,
                    metric,
                    value: *value,
                });
            }
        }
        samples
    }

    #[test]
    fn the_better_relay_is_the_better_one_of_each_round() {
        let samples = samples(&[[1.0, 2.0, 4.0], [1.0, 8.0, 4.0], [9.0, 3.0, 3.0]]);
        let measured = target(Over::BetterRelay, Bound::None)
            .measured(&samples)
            .unwrap();
        assert_eq!(
            (measured.low, measured.median, measured.high),
            (0.25, 0.5, 3.0)
        );
    }

    #[test]
    fn a_ratio_is_judged_by_its_median_and_a_plain_figure_by_its_largest() {
        let samples = samples(&[[1.0, 2.0, 4.0], [1.0, 8.0, 4.0], [9.0, 3.0, 3.0]]);
        let ratio = target(Over::BetterRelay, Bound::AtMost(0.6));
        assert_eq!(ratio.verdict(&samples), Verdict::Ok);
        assert_eq!(
            target(Over::Nothing, Bound::AtMost(8.0)).verdict(&samples),
            Verdict::Short
        );
    }

    #[test]
    fn a_target_without_figures_says_whose_are_missing() {
        let mut samples = Samples::default();
        samples.absent(CASE, System::Nats, Absence::Skipped);
        let over_nats = target(Over::One(System::Nats), Bound::AtLeast(3.0));
        assert_eq!(
            over_nats.verdict(&samples),
            Verdict::Absent(Absence::Skipped)
        );
        samples.absent(CASE, System::Lswitch, Absence::NotBuilt);
        assert_eq!(
            over_nats.verdict(&samples),
            Verdict::Absent(Absence::NotBuilt)
        );
    }
}
