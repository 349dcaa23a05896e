//! What comes over a pack's connection, frame by frame, to where it is waited for.

use crate::net::flow::{self, Announced, Channel, Signal};
use crate::net::frame::{DRIVER, Frame, Header, MESSAGE_MAX, kind};
use crate::net::link::{LinkError, ending};
use crate::net::mailbox::Arrived;
use crate::net::shared::Shared;
use crate::net::wire::{Came, Incoming, Reading};

impl Shared {
    /// Reads connection `index` once, and delivers what came. True if nothing is left to read for now.
    pub(crate) fn pump(&self, index: usize, incoming: &mut Incoming, how: Reading) -> bool {
        let wire = &self.wires[index];
        // What was read before the keeper began is delivered too.
        let read = wire.read(incoming, how);
        let drained = !matches!(&read, Ok(Came::Bytes { more: true, .. }));
        let outcome = match read {
            Ok(Came::End) => Err(LinkError::Closed(wire.address.clone())),
            Ok(_) => Ok(()),
            Err(source) => Err(LinkError::Io {
                address: wire.address.clone(),
                source,
            }),
        };
        let delivered = self.deliver(index, incoming);
        wire.has_delivered();
        if let Err(error) = delivered.and(outcome) {
            self.fail_on(index, error);
        }
        drained
    }

    fn deliver(&self, index: usize, incoming: &mut Incoming) -> Result<(), LinkError> {
        let wire = &self.wires[index];
        let mut signals = Vec::new();
        // What one read brought is handed over rank by rank, so that each is woken once.
        let mut batches = std::mem::take(&mut incoming.batches);
        batches.resize_with(self.mailboxes.len(), Vec::new);
        let outcome = loop {
            let (header, body) = match incoming.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            };
            let (body, reassembly) = incoming.body(body);
            let step = match header.kind {
                kind::DATA => self.place(header.destination).and_then(|place| {
                    if let Some(message) = reassembly.accept(header, body)? {
                        batches[place].push(Arrived {
                            message,
                            channel: channel(header),
                            pack: self.pack_number(header.source),
                            sequence: header.sequence,
                        });
                    }
                    Ok(())
                }),
                kind::ANNOUNCE => {
                    // After what came before it: the same rank's granted message may be there, and is not under way any more.
                    self.hand_over(&mut batches, &mut signals);
                    self.announced(header, body, &mut signals)
                }
                kind::GRANT => self
                    .mailbox(header.destination)
                    .map(|mailbox| mailbox.granted(header.source, header.sequence)),
                kind::CREDIT => match body.first_chunk() {
                    Some(bytes) if wire.returned(header.source, u64::from_le_bytes(*bytes)) => {
                        Ok(())
                    }
                    _ => Err(LinkError::Credit(header.source)),
                },
                kind::STATE => self
                    .mailbox(header.destination)
                    .map(|mailbox| mailbox.replied(header.sequence, body.to_vec())),
                kind::COMBINED => self.answers.arrived(index, header, body),
                kind::HEARTBEAT => Ok(()),
                kind::LEFT => {
                    self.has_left(index);
                    Ok(())
                }
                _ => Err(ending(&Frame {
                    header,
                    body: body.to_vec().into(),
                })),
            };
            if step.is_err() {
                break step;
            }
        };
        self.hand_over(&mut batches, &mut signals);
        incoming.batches = batches;
        outcome
    }

    fn hand_over(&self, batches: &mut [Vec<Arrived>], signals: &mut Vec<Signal>) {
        for ((rank, mailbox), batch) in (self.span.first_rank..).zip(&self.mailboxes).zip(batches) {
            if !batch.is_empty() {
                mailbox.deliver(batch, signals);
                self.signal(rank, signals);
            }
        }
    }

    fn announced(
        &self,
        header: Header,
        body: &[u8],
        signals: &mut Vec<Signal>,
    ) -> Result<(), LinkError> {
        let total = body
            .first_chunk()
            .map(|total| u64::from_le_bytes(*total))
            .filter(|total| *total <= MESSAGE_MAX)
            .filter(|_| header.source < self.size || header.source == DRIVER)
            .ok_or(LinkError::Announced(header.source))?;
        let message = Announced {
            source: header.source,
            channel: channel(header),
            sequence: header.sequence,
            cost: flow::cost(total as usize),
        };
        self.mailbox(header.destination)?
            .announced(message, signals);
        self.signal(header.destination, signals);
        Ok(())
    }

    /// The number of a source's pack; the driver comes after the last.
    fn pack_number(&self, source: u32) -> u32 {
        if source == DRIVER {
            self.packs.len() as u32
        } else {
            self.pack_of(source) as u32
        }
    }
}

fn channel(header: Header) -> Channel {
    Channel {
        group: header.group,
        tag: header.tag,
    }
}
