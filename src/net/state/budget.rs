//! What a job keeps here, in names and bytes, and the bounds on both.

use super::StateError;

/// What a name costs beside its own bytes: its place in a map whose nodes may be half full, the fixed part of what it
/// names, and the allocator's headers. Measured: 75 to 150 bytes.
pub const NAME_COST: usize = 256;

/// The most names that keep something, of counters, queues and vectors together. With the longest names they take 32 MiB
/// and a look-up a handful of comparisons; a job with more things to name should put them into items or vectors.
pub const NAMES_MAX: usize = 65_536;

/// What is used, and of how much.
pub(super) struct Budget {
    names: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Budget {
        Budget {
            names: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// From here on so much may be held; what is held already stays.
    pub(super) fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> usize {
        self.names
    }

    /// Makes room for a new name, if there is one, and for more bytes.
    ///
    /// # Errors
    /// When either is over its bound; then nothing is taken.
    pub(super) fn take(&mut self, name: Option<&str>, more: usize) -> Result<(), StateError> {
        let more = more.saturating_add(name.map_or(0, name_cost));
        if name.is_some() && self.names >= NAMES_MAX {
            return Err(StateError::NamesFull);
        }
        let free = self.bytes_max.saturating_sub(self.bytes);
        if more > free {
            return Err(StateError::BytesFull {
                held: self.bytes,
                max: self.bytes_max,
                more,
                over: more - free,
            });
        }
        self.names += usize::from(name.is_some());
        self.bytes += more;
        Ok(())
    }

    /// Gives back what [`Budget::take`] took.
    pub(super) fn give_back(&mut self, name: Option<&str>, less: usize) {
        self.names -= usize::from(name.is_some());
        self.bytes -= less + name.map_or(0, name_cost);
    }
}

/// What a name costs in all.
pub(super) fn name_cost(name: &str) -> usize {
    NAME_COST + name.len()
}
