"""One rank's end of the wire: messages as raw bytes.

A rank belongs to one thread: that which calls. While it waits it reads the sockets itself; otherwise the keeper does
(`lswitch.keeper`). One lock guards the state and what is written, another the reading; who needs both takes the
reading one first.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, List, Optional, Sequence, Tuple, TypeVar

from . import codec
from .data import Data, as_bytes
from .errors import ConnectionLostError, DeadlineError, LswitchError, ReceiveTimeout, TooLongError, UsageError
from .event import Event
from .flow import ANYTHING, LOCAL, Wanted
from .frame import ANNOUNCE, DRIVER, HEADER, LEAVE, MAILBOX_BYTES, MESSAGE_MAX, PROGRAM, U64, control, cost
from .join import Joined, join
from .keeper import Keeper
from .mailbox import Message
from .peer import Peer, Peers
from .reading import Reading
from .wire import GATHERED_MAX, WAITING_MAX, Wire
from .writing import write_message, write_small

_log = logging.getLogger("lswitch")

#: How long one look at the sockets lasts at most, in seconds; with several threads of a rank that wait, much less, since
#: one reads for all.
_SLICE_S = 0.5
_SHARED_SLICE_S = 0.002

#: After how long a wait is told to the log, in seconds.
_WARN_AFTER_S = 5.0

#: The longest result of a rank, in bytes: what the driver takes, which has all of them in memory.
RESULT_MAX = 256 << 20

#: How long the switch may take to let a pack go whose program failed, in seconds.
_LEAVE_WITHIN_S = 10.0

_Found = TypeVar("_Found")


class Comm(Reading):
    """A rank of a job. `Comm.join(event)` makes one; it must be left: `leave`, or as a context manager."""

    def __init__(self, event: Event, joined: Joined, deadline: float, mailbox: int = MAILBOX_BYTES) -> None:
        self.rank = event.rank
        self.size = event.size
        self.epoch = event.epoch
        #: When every wait ends at the latest, as `time.monotonic` tells it.
        self.deadline = deadline
        #: Messages and bytes of payload that were sent to others.
        self.sent_messages = 0
        self.sent_bytes = 0
        super().__init__(joined, Peers(event.rank, joined, mailbox))
        self.lock = threading.Lock()
        self.reading = threading.Lock()
        self.leading = False
        #: How often the rank has begun to read.
        self.led = 0
        self._waiting_threads = 0
        self._closed = False
        welcome = joined.welcome
        self._keeper = Keeper(self, welcome.heartbeat_ms / 1000, welcome.lost_after_ms / 1000)
        self.take_in_what_was_read()
        # Not before everything is there that it may use.
        self._keeper.start()

    @staticmethod
    def join(event: Event, deadline: float, mailbox: int = MAILBOX_BYTES) -> "Comm":
        """Joins the job of an event and waits until all its ranks have. `deadline` is a time of `time.monotonic`.

        Raises UnreachableError, RefusedError, or ConnectionLostError.
        """
        joined = join(event, deadline, mailbox)
        try:
            size = sum(run.packs * run.ranks for run in joined.start.runs)
            if size != event.size and not joined.start.elastic:
                raise ConnectionLostError(f"the switch started a job of another size than the event's {event.size}")
            return Comm(event, joined, deadline, mailbox)
        except BaseException:
            for wire in joined.wires:
                wire.close()
            raise

    def __enter__(self) -> "Comm":
        return self

    def __exit__(self, _kind: object, error: Optional[BaseException], _traceback: object) -> None:
        self.leave(None if error is None else f"rank {self.rank}: {type(error).__qualname__}: {error}")

    def remaining(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - time.monotonic())

    def send(self, rank: int, data: Data, tag: int = 0, *, keep: bool = False) -> None:
        """Sends a message to a rank, itself included.

        Returns when it is handed to the connection: without waiting while there is credit for it, else when the
        destination has room for it or receives it. Order is kept for each destination and tag. A short message leaves
        when this rank waits for something, when many have gathered, with `flush`, or by itself within some milliseconds.

        With `keep`, whatever others want to send meanwhile is taken in without regard to the mailbox, so that ranks which all send
        before they receive complete whatever the lengths.

        Raises UsageError, ConnectionLostError, RefusedError or DeadlineError.
        """
        if not 0 <= rank < self.size:
            raise UsageError(f"rank {self.rank} sent to rank {rank} of a job of {self.size} ranks")
        if self.peers.packs.elastic and rank != self.rank:
            raise UsageError(
                f"rank {self.rank} sent to rank {rank} in an elastic job, whose workers come and go and know the driver alone; "
                "use the shared state (job.queue, job.counter, job.vector)"
            )
        if type(data) is not bytes:
            data = as_bytes(data)
        if rank == self.rank:
            self._send_to_self(tag, data)
        else:
            self.send_in_group(rank, PROGRAM, tag, data, keep)

    def send_to_driver(self, data: Data, tag: int = 0) -> None:
        """Sends a message to the driver. What lswitch's own driver reads is in docs/PROTOCOL.md."""
        self.send_in_group(DRIVER, PROGRAM, tag, as_bytes(data), False)

    def receive(self, source: Optional[int] = None, tag: int = 0, timeout: Optional[float] = None) -> Message:
        """The next message with this tag, from one rank or from any.

        Raises ReceiveTimeout after `timeout` seconds, DeadlineError at the invocation's deadline, ConnectionLostError or
        RefusedError.
        """
        if source is not None and not (0 <= source < self.size or source == DRIVER):
            raise UsageError(f"rank {self.rank} receives from rank {source} of a job of {self.size} ranks")
        return self.receive_in_group(source, PROGRAM, tag, timeout)

    def receive_many(self, source: int, tag: int, bytes_max: int) -> List[bytes]:
        """The messages with this tag that have come from one rank, or the driver, at least one and about so many bytes at most; waits as long
        as it takes until the deadline.

        Raises DeadlineError, ConnectionLostError or RefusedError.
        """
        channel = (PROGRAM, tag)
        lines = self.mailbox.lines
        return self.wait(
            lambda: (self.take_many(source, channel, bytes_max) or None) if channel in lines else None,
            lambda: f"messages with tag {tag}",
            wanted=Wanted(source, channel),
            warn=False,
        )

    def send_many(self, rank: int, tag: int, messages: Sequence[bytes]) -> None:
        """Sends messages to another rank, or the driver, as one after the other, for less than each alone costs."""
        at = 0
        while at < len(messages):
            with self.lock:
                at += self._send_on_credit(rank, tag, messages, at)
            self.room_to_write(self.peers.of(rank).wire, lambda: f"room to send to rank {rank}")
            if at < len(messages):
                self.send_in_group(rank, PROGRAM, tag, messages[at])
                at += 1

    def flush(self) -> None:
        """Writes what has been gathered, as far as the connection takes it."""
        with self.lock:
            self.flush_wires()

    def progress(self, superstep: int, measure: float) -> None:
        """Tells the driver how far the program is."""
        self.send_to_driver(codec.progress(superstep, measure))

    def usage(self, memory_mb: int, arm: bool, elapsed_s: float) -> None:
        """Tells the driver what the pack has taken so far: memory, whether on Graviton, and for how long."""
        self.send_to_driver(codec.usage(memory_mb, arm, int(elapsed_s * 1000)))

    def result(self, data: Data) -> None:
        """Tells the driver what the rank returns: once, as its last message.

        Raises TooLongError if it is over 256 MiB.
        """
        result = as_bytes(data)
        if len(result) > RESULT_MAX:
            raise TooLongError(
                f"rank {self.rank} returned {len(result)} bytes, over the limit of {RESULT_MAX} (256 MiB) for the result of a rank; write long "
                "results to a store, or send them to another rank in parts"
            )
        self.send_to_driver(codec.result(result))

    # For the modules beside this one

    def send_in_group(self, rank: int, group: int, tag: int, data: bytes, keep: bool = False) -> None:
        """Sends to another rank, or to the driver."""
        with self.lock:
            peer = self._begin_to_send(rank, tag, data)
            sequence = peer.next_out
            peer.next_out = sequence + 1
            amount = cost(len(data))
            if peer.used + amount <= peer.share:
                peer.used += amount
                granted = True
            else:
                granted = self._announce(peer, group, tag, sequence, len(data))
            if granted and len(data) <= GATHERED_MAX:
                self._write_small(peer, group, tag, sequence, data)
                return
        if not granted:
            self._wait_for_grant(peer, sequence, len(data), tag, keep)
        write_message(self, peer, group, tag, sequence, data)

    def begin_to_send_in_group(self, rank: int, group: int, tag: int, data: bytes) -> Optional[int]:
        """Sends to another rank on credit, or announces it and gives its number; see `send_granted`."""
        with self.lock:
            peer = self._begin_to_send(rank, tag, data)
            sequence = peer.next_out
            peer.next_out = sequence + 1
            if peer.used + cost(len(data)) <= peer.share:
                peer.used += cost(len(data))
            elif not self._announce(peer, group, tag, sequence, len(data)):
                return sequence
        write_message(self, peer, group, tag, sequence, data)
        return None

    def send_granted(self, rank: int, group: int, tag: int, sequence: int, data: bytes) -> None:
        """Sends what was announced, now that its grant has come."""
        write_message(self, self.peers.of(rank), group, tag, sequence, data)

    def receive_in_group(self, source: Optional[int], group: int, tag: int, timeout: Optional[float]) -> Message:
        channel = (group, tag)
        with self.lock:
            found = self.take(source, channel)
        if found is not None:
            # The rank is here and will read itself, so that the keeper need not.
            self.led += 1
            return found
        until = None if timeout is None else time.monotonic() + timeout

        def what() -> str:
            whom = "any rank" if source is None else "the driver" if source == DRIVER else f"rank {source}"
            if group == PROGRAM:
                return f"a message with tag {tag} from {whom}"
            return f"{whom} to make the same collective call"

        return self.wait(lambda: self.take(source, channel), what, until, Wanted(source, channel))

    def wait(
        self,
        look: Callable[[], Optional[_Found]],
        what: Callable[[], str],
        until: Optional[float] = None,
        wanted: Optional[Wanted] = None,
        warn: bool = True,
    ) -> _Found:
        """Reads and writes until `look` finds something. It is called with the lock held.

        `until` is a time at which ReceiveTimeout is raised; `what` says what is waited for, and of whom.
        """
        with self.lock:
            self._waiting_threads += 1
        warn_at = time.monotonic() + _WARN_AFTER_S if warn else float("inf")
        try:
            while True:
                with self.reading:
                    self.leading = True
                    self.led += 1
                    found = self._lead(look, wanted, until, warn_at)
                    if found is not None:
                        return found
                now = time.monotonic()
                if now >= warn_at and now < self.deadline:
                    _log.warning("rank %d has waited %g s for %s", self.rank, _WARN_AFTER_S, what())
                    warn_at = float("inf")
                if now >= self.deadline:
                    raise DeadlineError(f"rank {self.rank} waited for {what()} until its deadline")
                if until is not None and now >= until:
                    raise ReceiveTimeout(f"rank {self.rank} waited in vain for {what()}; the time it gave has passed")
        finally:
            with self.lock:
                self._waiting_threads -= 1

    def _lead(
        self, look: Callable[[], Optional[_Found]], wanted: Optional[Wanted], until: Optional[float], warn_at: float
    ) -> Optional[_Found]:
        """Reads for a while. None if nothing was found until a time that matters, or for others to have their turn."""
        room = self.room
        try:
            first = True
            while True:
                with self.lock:
                    # Before the look, which may ask whether there is room to write.
                    drained = self.flush_wires()
                    found = look()
                    if found is not None:
                        return found
                    if self.failure is not None:
                        raise self.failure.with_traceback(None)
                    if first and wanted is not None:
                        room.wanted = wanted
                        room.look(wanted)
                        if room.signals:
                            self.signal()
                            drained = drained and self.flush_wires()
                end = min(self.deadline, warn_at, self.deadline if until is None else until)
                left = end - time.monotonic()
                if left <= 0 or (self._waiting_threads > 1 and not first):
                    if left <= 0:
                        self._read(0.0, drained)
                        with self.lock:
                            return look()
                    return None
                first = False
                self._read(min(left, _SLICE_S if self._waiting_threads == 1 else _SHARED_SLICE_S), drained)
        finally:
            self.leading = False
            if wanted is not None:
                room.wanted = None

    def check(self) -> None:
        """Raises why the job has ended, if it has, or DeadlineError if no time is left."""
        if self.failure is not None:
            raise self.failure.with_traceback(None)
        if time.monotonic() >= self.deadline:
            raise DeadlineError(f"rank {self.rank} has reached its deadline")

    def contribute(self, call: Tuple[int, int], operation: Optional[int], frame: bytes, what: Callable[[], str]) -> None:
        """Gives a segment to a switch; the answer will be in `answers`. An operation of None has no answer."""
        wire = self.wires[call[0]]
        with self.lock:
            self.check()
            if operation is not None:
                self.due[call] = operation
            self.push(wire, frame)
        self.room_to_write(wire, what)

    def ask(self, switch: int, number: int, frame: bytes, what: Callable[[], str]) -> bytes:
        """One request of the shared state, and its reply."""
        wire = self.wires[switch]
        with self.lock:
            self.check()
            self.replies[number] = None
            self.push(wire, frame)
        self.room_to_write(wire, what)

        def look() -> Optional[bytes]:
            return self.replies.pop(number) if self.replies[number] is not None else None

        return self.wait(look, what)

    def push(self, wire: Wire, data: bytes) -> None:
        """Adds to what is written; the lock is held."""
        wire.push(data)
        if wire.waiting >= GATHERED_MAX:
            wire.flush()
        elif not self._keeper.awake:
            self._keeper.awake = True
            self._keeper.ring()

    def room_to_write(self, wire: Wire, what: Callable[[], str]) -> None:
        """Waits until the connection takes more, if much waits for it."""
        if wire.waiting > WAITING_MAX:
            self.wait(lambda: True if wire.waiting <= WAITING_MAX // 2 else None, what)

    def _begin_to_send(self, rank: int, tag: int, data: bytes) -> Peer:
        if self.failure is not None:
            raise self.failure.with_traceback(None)
        if self._closed or self.leaving:
            raise UsageError(f"rank {self.rank} sent a message after it has left the job")
        if not 0 <= tag <= 0xFFFFFFFF:
            raise UsageError(f"rank {self.rank} gave the tag {tag}; tags are from 0 to {0xFFFFFFFF}")
        if len(data) > MESSAGE_MAX:
            raise UsageError(f"rank {self.rank} sent a message of {len(data)} bytes; the most is {MESSAGE_MAX}")
        peer = self.peers.of(rank)
        if peer.awaits is not None:
            raise UsageError(
                f"rank {self.rank} sent to rank {rank} while an earlier message to it waits for room; "
                "a rank is used by one thread, and not after a DeadlineError"
            )
        self.sent_messages += 1
        self.sent_bytes += len(data)
        return peer

    def _send_on_credit(self, rank: int, tag: int, messages: Sequence[bytes], at: int) -> int:
        """Writes the short messages from there on for which there is credit; gives how many. The lock is held."""
        peer = self._begin_to_send(rank, tag, messages[at])
        wire = peer.wire
        self.sent_messages -= 1
        self.sent_bytes -= len(messages[at])
        parts: List[bytes] = []
        gathered = used = total = 0
        for data in messages[at:] if at else messages:
            length = len(data)
            amount = cost(length)
            if length > GATHERED_MAX or peer.used + used + amount > peer.share or gathered > GATHERED_MAX:
                break
            parts.append(write_small(self, peer, PROGRAM, tag, peer.next_out, data))
            peer.next_out += 1
            used += amount
            total += length
            gathered += length
        if parts:
            peer.used += used
            self.sent_messages += len(parts)
            self.sent_bytes += total
            self.push(wire, b"".join(parts))
        return len(parts)

    def _write_small(self, peer: Peer, group: int, tag: int, sequence: int, data: bytes) -> None:
        wire = peer.wire
        wire.push(write_small(self, peer, group, tag, sequence, data))
        if wire.waiting >= GATHERED_MAX:
            if not wire.flush() and wire.waiting > WAITING_MAX:
                self._unlocked(lambda: self.room_to_write(wire, lambda: f"room to send to rank {peer.rank}"))
        elif not self._keeper.awake:
            self._keeper.awake = True
            self._keeper.ring()

    def _unlocked(self, act: Callable[[], None]) -> None:
        self.lock.release()
        try:
            act()
        finally:
            self.lock.acquire()

    def _announce(self, peer: Peer, group: int, tag: int, sequence: int, length: int) -> bool:
        """Asks whether a message may be sent; the lock is held. True if there is credit for it after all."""
        if cost(length) <= peer.share:
            # The credit may lie in the socket.
            self._unlocked(self._read_what_is_there)
            if peer.used + cost(length) <= peer.share:
                peer.used += cost(length)
                return True
        head = HEADER.pack(ANNOUNCE, 0, group, self.epoch, tag, self.rank, peer.rank, sequence, 8)
        self.push(peer.wire, head + U64.pack(length))
        peer.awaits = sequence
        return False

    def _read_what_is_there(self) -> None:
        if self.reading.acquire(blocking=False):
            try:
                self._read(0.0, True)
            finally:
                self.reading.release()

    def _wait_for_grant(self, peer: Peer, sequence: int, length: int, tag: int, keep: bool) -> None:
        whom = "the driver" if peer.rank == DRIVER else f"rank {peer.rank}"
        self.wait(
            lambda: peer.take_grant(sequence) or None,
            lambda: f"{whom} to receive a message of {length} bytes with tag {tag}",
            wanted=ANYTHING if keep else None,
        )

    def _send_to_self(self, tag: int, data: bytes) -> None:
        with self.lock:
            if not self.room.admit_local(cost(len(data))):
                raise UsageError(
                    f"rank {self.rank} sent itself more than there is room for without receiving it"
                )
            self.mailbox.put(self.rank, (PROGRAM, tag), data, LOCAL)

    # The end

    def leave(self, failure: Optional[str] = None) -> None:
        """Says that the rank is done, or why its program failed; waits for the switch to let it go, and closes.

        Once it returns all that was sent before is through, and no thread is left.

        Raises ConnectionLostError or RefusedError when the job or the connection ended first, unless there is a failure to tell.
        """
        if self._closed:
            return
        try:
            with self.lock:
                self.stop_receiving()
                for wire in self.wires:
                    if not wire.closed:
                        wire.push(control(LEAVE, codec.leave(failure)))
            patience = _LEAVE_WITHIN_S if failure is not None else max(_LEAVE_WITHIN_S, self.remaining())
            self.deadline = time.monotonic() + patience
            self.wait(
                lambda: True if all(wire.left for wire in self.wires) else None,
                lambda: "the switch to let it go",
            )
        except DeadlineError as error:
            if failure is None:
                raise ConnectionLostError(str(error)) from None
        except LswitchError:
            if failure is None:
                raise
        finally:
            self.close()

    def close(self) -> None:
        """Closes the connections without a word, which the driver is told as a loss. After `leave` it does nothing."""
        if self._closed:
            return
        self._closed = True
        self._keeper.stop()
        with self.reading, self.lock:
            if self.failure is None:
                self.failure = ConnectionLostError(f"rank {self.rank} has left the job")
            for wire in self.wires:
                wire.close()

