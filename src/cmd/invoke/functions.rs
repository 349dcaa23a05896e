//! Which functions run a job's workers: `NAME`, `NAME,NAME` in turns, so that Lambda makes environments of each at its own rate, or
//! `NAME=COUNT,NAME=COUNT` for workers of several kinds in one job.

use crate::aws::AwsSettings;
use crate::cmd::UsageError;
use crate::cmd::settings::home;
use crate::lambda::launch::Share;
use crate::lambda::local::{DEFAULT_FUNCTION, LocalFunction, own_function};
use anyhow::Context;
use std::path::Path;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Functions {
    named: Vec<(String, Option<u32>)>,
}

impl Functions {
    /// Reads what was given; nothing names none.
    ///
    /// # Errors
    /// When a count is none, or one is missing.
    pub fn parse(text: &str) -> Result<Option<Functions>, UsageError> {
        let mut named = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, count) = match part.rsplit_once('=') {
                None => (part, None),
                Some((name, count)) => {
                    let wrong = || {
                        UsageError(format!(
                            "{part}: behind = stands how many workers, at least 1"
                        ))
                    };
                    let count: u32 = count.parse().map_err(|_| wrong())?;
                    (
                        name,
                        Some(count)
                            .filter(|count| *count > 0)
                            .ok_or_else(wrong)?
                            .into(),
                    )
                }
            };
            if !name.is_empty() {
                named.push((name.to_string(), count));
            }
        }
        let counted = named.iter().filter(|(_, count)| count.is_some()).count();
        if counted > 0 && counted < named.len() {
            let what = format!(
                "{text}: say of each function how many workers it runs, NAME=COUNT,NAME=COUNT, or of none"
            );
            return Err(UsageError(what));
        }
        Ok(Some(Functions { named }).filter(|functions| !functions.named.is_empty()))
    }

    /// True if several share a job.
    pub fn are_several(&self) -> bool {
        self.named.len() > 1
    }

    /// All workers, if counts say how many.
    pub fn workers(&self) -> Option<u32> {
        let counts: Option<Vec<u32>> = self.named.iter().map(|(_, count)| *count).collect();
        counts.map(|counts| counts.into_iter().fold(0, u32::saturating_add))
    }

    /// How many of so many workers one function runs at most.
    pub fn largest_share(&self, workers: u32) -> u32 {
        let counts = self.named.iter().filter_map(|(_, count)| *count);
        let even = workers.div_ceil(self.named.len().max(1) as u32);
        counts.max().unwrap_or(even)
    }

    /// Which ranks each runs.
    pub fn shares(&self) -> Vec<Share> {
        let mut end = 0u32;
        let shares = self.named.iter().map(|(name, count)| {
            end = count.map_or(u32::MAX, |count| end.saturating_add(count));
            Share {
                function: function_name(name),
                end,
            }
        });
        shares.collect()
    }

    /// The functions of this machine that these names or files stand for.
    ///
    /// # Errors
    /// When there is none of a name, or its file is wrong.
    pub async fn load(&self, aws: &AwsSettings) -> anyhow::Result<Vec<LocalFunction>> {
        let mut functions: Vec<LocalFunction> = Vec::new();
        for (name, _) in &self.named {
            let file = match is_file(name) {
                true => name.into(),
                false => home()?.join("functions").join(format!("{name}.toml")),
            };
            let known = functions
                .iter()
                .any(|function| function.name == function_name(name));
            if known {
                let what = format!("two of the functions are called {name}");
                return Err(UsageError(what).into());
            }
            if !file.exists() && name == DEFAULT_FUNCTION {
                functions.push(own_function(aws).await?);
                continue;
            }
            let loaded = LocalFunction::load(&file);
            functions.push(loaded.with_context(|| format!("--local-function {name}"))?);
        }
        Ok(functions)
    }
}

fn is_file(name: &str) -> bool {
    name.contains('/') || name.ends_with(".toml")
}

/// A file is called as its function.
fn function_name(name: &str) -> String {
    match is_file(name) {
        true => Path::new(name)
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        false => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Functions {
        Functions::parse(text).unwrap().unwrap()
    }

    #[test]
    fn names_counts_and_files_are_understood() {
        assert_eq!(Functions::parse("").unwrap(), None);
        let one = parse("F");
        let share = |function: &str, end| Share {
            function: function.into(),
            end,
        };
        assert_eq!(
            (one.workers(), one.shares()),
            (None, vec![share("F", u32::MAX)])
        );
        let two = parse("lswitch=2, some/py.toml=3");
        assert_eq!(two.workers(), Some(5));
        assert_eq!(two.shares(), [share("lswitch", 2), share("py", 5)]);
        let turns = parse("F,G");
        assert_eq!(turns.workers(), None);
        assert_eq!(turns.shares(), [share("F", u32::MAX), share("G", u32::MAX)]);
        for text in ["F=0", "F=x", "F,G=2", "F=-1"] {
            assert!(Functions::parse(text).is_err(), "{text}");
        }
    }
}
