//! Counters: whole numbers that many add to.

use super::budget::Budget;
use super::{Reply, StateError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What may be asked of a counter. One that nobody has set is 0, and nothing is kept for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CounterVerb {
    /// Adds; the reply is the [`Reply::Value`] after it. A sum over an i64 is an error.
    Add {
        /// How much, which may be less than nothing.
        by: i64,
    },
    /// The reply is its [`Reply::Value`].
    Get,
    /// Sets it if it is what is expected. The reply is [`Reply::Done`] or [`Reply::CompareFailed`].
    CompareAndSet {
        /// What it must be.
        expected: i64,
        /// What it is to become.
        new: i64,
    },
    /// Sets it, whatever it is. The reply is [`Reply::Done`].
    Set {
        /// What it is to become.
        value: i64,
    },
    /// Forgets it, if it is there. The reply is [`Reply::Done`].
    Delete,
}

/// All counters of a job.
#[derive(Default)]
pub(super) struct Counters {
    counters: BTreeMap<String, i64>,
}

impl Counters {
    pub(super) fn apply(
        &mut self,
        name: String,
        verb: CounterVerb,
        budget: &mut Budget,
    ) -> Result<Reply, StateError> {
        let value = self.counters.get(&name).copied().unwrap_or(0);
        match verb {
            CounterVerb::Get => Ok(Reply::Value(value)),
            CounterVerb::Add { by } => match value.checked_add(by) {
                Some(sum) => {
                    self.set(name, sum, budget)?;
                    Ok(Reply::Value(sum))
                }
                None => Err(StateError::CounterOverflow { name, value, by }),
            },
            CounterVerb::CompareAndSet { expected, .. } if expected != value => {
                Ok(Reply::CompareFailed(value))
            }
            CounterVerb::CompareAndSet { new: value, .. } | CounterVerb::Set { value } => {
                self.set(name, value, budget)?;
                Ok(Reply::Done)
            }
            CounterVerb::Delete => {
                if self.counters.remove(&name).is_some() {
                    budget.give_back(Some(&name), 0);
                }
                Ok(Reply::Done)
            }
        }
    }

    fn set(&mut self, name: String, value: i64, budget: &mut Budget) -> Result<(), StateError> {
        match self.counters.get_mut(&name) {
            Some(counter) => *counter = value,
            None => {
                budget.take(Some(&name), 0)?;
                self.counters.insert(name, value);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn recount(&self) -> (usize, usize) {
        let bytes = self
            .counters
            .keys()
            .map(|name| super::budget::name_cost(name))
            .sum();
        (self.counters.len(), bytes)
    }
}
