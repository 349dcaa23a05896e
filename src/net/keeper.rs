//! The thread that keeps a pack's connection alive: it gives signs of life, reads while no rank does, and sends what ranks
//! have left to be gathered.
//!
//! In a pack of one rank, the rank reads the socket itself while it waits, and the keeper stands by: it only looks once a
//! tick whether that is still so. In all others the keeper reads, but while a rank waits for the switch to answer a
//! collective: that rank reads for all. Programs that compute starve neither.

use crate::net::frame::kind;
use crate::net::link::LinkError;
use crate::net::message::bare_frame;
use crate::net::shared::Shared;
use crate::net::wire::{Reading, Woken};
use crate::net::{HEARTBEAT_MS, LOST_AFTER_MS};
use std::io::PipeReader;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a frame that nobody waits for may lie, and how soon the keeper reads when a rank stops to.
const TICK: Duration = Duration::from_millis(2);

/// The same while a rank comes and goes: it sends and reads itself, as long as it does not compute.
const SOFT_TICK: Duration = Duration::from_millis(5);

/// The same while a rank reads the socket just now.
const LED_TICK: Duration = Duration::from_millis(20);

/// Between two looks at a rank that has been waiting for long.
const LONG_TICK: Duration = Duration::from_millis(50);

const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MS);
const LOST_AFTER: Duration = Duration::from_millis(LOST_AFTER_MS);

/// Keeps connection number `index` of a pack until it ends.
pub(crate) fn keep(shared: Arc<Shared>, index: usize, mut bell: PipeReader) {
    let wire = &shared.wires[index];
    let mut beat = Instant::now() + HEARTBEAT;
    let mut led = 0;
    // What was read along with the start lies there already.
    let mut woken = Woken {
        readable: true,
        rung: false,
    };
    while !shared.has_ended(index) {
        if Instant::now() >= beat {
            beat = Instant::now() + HEARTBEAT;
            if !shared.is_leaving() {
                wire.push(&bare_frame(kind::HEARTBEAT, false));
            }
        }
        // What came while this process was stopped is looked at first.
        if wire.silence() > LOST_AFTER && !wire.wait(Duration::ZERO, false) {
            return shared.fail(LinkError::Silent {
                address: wire.address.clone(),
                seconds: LOST_AFTER.as_secs(),
            });
        }
        if woken.readable
            && let Some(mut incoming) = wire.try_incoming()
            && !wire.is_led()
        {
            shared.pump(index, &mut incoming, Reading::AtOnce);
        }
        // Before what waits is sent: who adds to it afterwards rings the bell, who did before is sent.
        wire.armed.store(false, Ordering::Relaxed);
        // The bell says that somebody has begun to send; what follows within a tick goes with it.
        let blocked = !woken.rung && !wire.flush();
        let until_beat = beat.saturating_duration_since(Instant::now());
        let led_before = std::mem::replace(&mut led, wire.led());
        // Before it is looked at who reads: a rank that goes to sleep meanwhile rings.
        wire.leave_alone(true);
        let leading = wire.is_led();
        let stands_by = leading || led != led_before && !shared.has_sleepers();
        let busy = woken.readable || woken.rung || blocked || led != led_before;
        if busy {
            wire.armed.store(true, Ordering::Relaxed);
        }
        let most = match (busy, stands_by) {
            (true, false) => TICK,
            (true, true) if leading => LED_TICK,
            (true, true) => SOFT_TICK,
            (false, true) => LONG_TICK,
            (false, false) => LOST_AFTER,
        };
        wire.leave_alone(stands_by);
        woken = wire.wait_or_bell(&mut bell, most.min(until_beat), !stands_by);
    }
}
