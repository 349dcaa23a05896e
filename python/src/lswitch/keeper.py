"""The thread that keeps a pack's connections alive: it gives signs of life, reads while the rank does not, and writes what
the rank left to be gathered. A rank that computes for minutes is so neither silent nor deaf.

The rank reads the sockets itself while it waits. To wake both for each message would cost more than the message: while the
rank comes and goes, the keeper only looks once a tick whether that is still so, and it waits for the sockets itself when
the rank has not been there for a tick.
"""

from __future__ import annotations

import os
import select
import threading
import time
from typing import TYPE_CHECKING, Dict

from .errors import ConnectionLostError
from .frame import HEARTBEAT, control

if TYPE_CHECKING:
    from .comm import Comm

#: How long what the rank sent may lie while the rank computes, in seconds.
_TICK_S = 0.002

#: The same while the rank waits now and then, at which it writes itself.
_STAND_BY_S = 0.005

#: The same while it has been waiting for long.
_LONG_S = 0.050


#: How long a silence that is too long is looked into, in seconds.
_SUSPECT_S = 0.25


class Keeper:
    """See the module. `start` begins it; `stop` ends it and waits until it is gone."""

    def __init__(self, comm: "Comm", heartbeat_s: float, lost_after_s: float) -> None:
        self._comm = comm
        self._heartbeat_s = heartbeat_s
        self._lost_after_s = lost_after_s
        self._bell, self._rope = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._rope, False)
        self._stopped = False
        #: Wires that were silent for too long, and since when that is known.
        self._suspects: Dict[int, float] = {}
        #: It will look within a tick, so that nobody needs to ring.
        self.awake = True
        self._thread = threading.Thread(target=self._run, name=f"lswitch keeper of rank {comm.rank}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ring(self) -> None:
        """Something waits to be written."""
        try:
            os.write(self._rope, b"!")
        except BlockingIOError:
            # It has been rung often enough.
            pass

    def stop(self) -> None:
        self._stopped = True
        self.ring()
        self._thread.join()
        os.close(self._bell)
        os.close(self._rope)

    def _run(self) -> None:
        try:
            self._keep()
        except Exception as error:
            # A rank must not go on as if somebody answered for it.
            self._comm.fail(ConnectionLostError(f"the keeper of rank {self._comm.rank} failed: {error!r}"))
            raise

    def _keep(self) -> None:
        comm = self._comm
        bell = select.poll()
        bell.register(self._bell, select.POLLIN)
        beat_at = time.monotonic() + self._heartbeat_s
        led = -1
        while not self._stopped and comm.failure is None:
            now = time.monotonic()
            if now >= beat_at:
                beat_at = now + self._heartbeat_s
                self._beat()
            self._look_for_silence(now)
            led_before, led = led, comm.led
            rank_reads = comm.leading
            with comm.lock:
                drained = comm.flush_wires()
                # Whoever pushes after this rings.
                self.awake = rank_reads or led != led_before or not drained
            if rank_reads or led != led_before:
                pause = _LONG_S if rank_reads and led == led_before else _STAND_BY_S
                self._listen(bell, min(pause, max(0.0, beat_at - now)))
            else:
                self._watch(_SUSPECT_S if self._suspects else max(0.0, beat_at - now))

    def _listen(self, bell: select.poll, seconds: float) -> None:
        """Waits for the bell alone."""
        if bell.poll(1000 * seconds):
            os.read(self._bell, 512)

    def _watch(self, seconds: float) -> None:
        """Waits for the sockets and the bell, and reads."""
        comm = self._comm
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        wires = {}
        with comm.lock:
            for wire in comm.wires:
                if not wire.closed and not wire.left:
                    wires[wire.socket.fileno()] = wire
                    poller.register(wire.socket, select.POLLIN | (select.POLLOUT if wire.waiting else 0))
        found = poller.poll(1000 * seconds)
        if any(fd == self._bell for fd, _ in found):
            os.read(self._bell, 512)
            self.awake = True
            # What follows soon goes with it.
            time.sleep(_TICK_S)
        if not comm.reading.acquire(blocking=False):
            # The rank has come to read.
            return
        try:
            for fd, event in found:
                if fd in wires and event & ~select.POLLOUT:
                    comm.pump(wires[fd])
        finally:
            comm.reading.release()

    def _beat(self) -> None:
        comm = self._comm
        with comm.lock:
            if not comm.leaving:
                for wire in comm.wires:
                    if not wire.closed and not wire.left:
                        wire.push(control(HEARTBEAT))
                comm.flush_wires()

    def _look_for_silence(self, now: float) -> None:
        comm = self._comm
        for wire in comm.wires:
            if wire.closed or wire.left or now - wire.heard <= self._lost_after_s:
                self._suspects.pop(wire.number, None)
                continue
            since = self._suspects.setdefault(wire.number, now)
            if now - since < _SUSPECT_S:
                # What came while this process was stopped is looked at first, here or by the rank.
                if comm.reading.acquire(blocking=False):
                    try:
                        comm.pump(wire)
                    finally:
                        comm.reading.release()
            else:
                comm.fail(
                    ConnectionLostError(f"the switch at {wire.address} was silent for {self._lost_after_s:g} s")
                )
