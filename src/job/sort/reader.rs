//! Whole records of inputs that are read one after the other.

use super::record::{Format, LINE_MAX};
use crate::job::items::read::{Input, Reading};

/// See the module.
pub struct RecordReader {
    inputs: std::vec::IntoIter<Input>,
    format: Format,
    reading: Option<(Input, Reading)>,
    /// What was read, of which so many bytes were given.
    held: Vec<u8>,
    given: usize,
}

impl RecordReader {
    /// Nothing was read yet.
    pub fn new(inputs: Vec<Input>, format: Format) -> RecordReader {
        RecordReader {
            inputs: inputs.into_iter(),
            format,
            reading: None,
            held: Vec::new(),
            given: 0,
        }
    }

    /// The next whole records, or none at the end.
    ///
    /// # Errors
    /// When an input cannot be read, ends within a record, or has a line of more than [`LINE_MAX`] bytes; in words.
    pub fn next_records(&mut self) -> Result<Option<&[u8]>, String> {
        self.held.drain(..self.given);
        self.given = 0;
        while self.given == 0 {
            let Some((input, reading)) = &mut self.reading else {
                let Some(input) = self.inputs.next() else {
                    return Ok(None);
                };
                self.reading = Some((input.clone(), input.read()));
                continue;
            };
            // No record ends in what is held.
            let begun = self.held.len();
            match (reading.more()?, self.format) {
                (Some(bytes), _) => self.held.extend_from_slice(bytes),
                (None, Format::Fixed(length)) if begun > 0 => {
                    return Err(format!(
                        "{} ends within a record of {length} bytes",
                        input.name()
                    ));
                }
                (None, _) => {
                    // The last line of a text may have no end.
                    if begun > 0 {
                        self.held.push(b'\n');
                    }
                    self.given = self.held.len();
                    self.reading = None;
                    continue;
                }
            }
            self.given = match self.format {
                Format::Fixed(_) => self.format.whole(&self.held),
                Format::Lines | Format::Keyed | Format::Grouped => {
                    let new = &self.held[begun..];
                    let first =
                        memchr::memchr(b'\n', new).map_or(self.held.len(), |end| begun + end);
                    if first > LINE_MAX {
                        let begins = reading.position() - self.held.len() as u64;
                        return Err(format!(
                            "{} has more than {LINE_MAX} bytes, the most of a line; is this a text?",
                            input.place_of(begins)
                        ));
                    }
                    memchr::memrchr(b'\n', new).map_or(0, |end| begun + end + 1)
                }
            };
        }
        Ok(Some(&self.held[..self.given]))
    }
}
