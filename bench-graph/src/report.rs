//! What was measured, and whether it is enough.

/// What a measure has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// Anything.
    None,
}

/// A line of the report.
struct Row {
    name: String,
    bound: Bound,
    values: Vec<f64>,
}

/// All lines, in the order in which they came.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds what a round has measured.
    pub fn add(&mut self, name: &str, value: f64, bound: Bound) {
        println!("  {name}: {value:.3}");
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row {
                name: name.to_owned(),
                bound,
                values: vec![value],
            }),
        }
    }

    /// Prints a line for each target.
    pub fn print(&self) {
        println!(
            "\n{:<56} {:>9} {:>17} {:>9}",
            "target", "measured", "(least-most)", "bound"
        );
        for row in &self.rows {
            let middle = median(&row.values);
            let least = row.values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = row.values.iter().copied().fold(0.0, f64::max);
            let (bound, verdict) = match row.bound {
                Bound::AtMost(bound) => (format!("<= {bound:.2}"), middle <= bound),
                Bound::AtLeast(bound) => (format!(">= {bound:.2}"), middle >= bound),
                Bound::None => ("-".into(), true),
            };
            let verdict = match (row.bound, verdict) {
                (Bound::None, _) => "-",
                (_, true) => "ok",
                (_, false) => "short",
            };
            let spread = format!("({least:.2}-{most:.2})");
            println!(
                "{:<56} {middle:>9.2} {spread:>17} {bound:>9}  {verdict}",
                row.name
            );
        }
    }
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[half],
        _ => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}
