"""Joining: connect to each switch, prove oneself, and wait until all ranks are there."""

from __future__ import annotations

import os
import select
import socket
import time
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Tuple

from . import address as addresses
from . import codec
from .codec import Start, Welcome
from .errors import ConnectionLostError, LswitchError, ProtocolError, RefusedError, UnreachableError
from .event import Event
from .frame import CRC32, END, HEARTBEAT, HELLO, MAILBOX_BYTES, PREAMBLE, REFUSED, START, WELCOME, control
from .frame import Header
from .proof import NONCE_LEN, is_proved
from .release import RELEASE
from .wire import Wire

if TYPE_CHECKING:
    from .tls import SealedSocket

#: How long one attempt to connect may take, in seconds: shorter than the silence that a switch bears from others.
_ATTEMPT_S = 4.0

#: Between two attempts, in seconds.
_PAUSE_S = 0.2


class Joined(NamedTuple):
    """What a pack begins with."""

    wires: List[Wire]
    welcome: Welcome
    start: Start


def join(event: Event, until: Optional[float] = None, mailbox: int = MAILBOX_BYTES) -> Joined:
    """Joins at each switch of the event.

    `until` is a time of `time.monotonic`, at which waiting ends at the latest; the event's own bound may be sooner.

    Raises UnreachableError, also when what answers is not the job's switch, RefusedError, or ConnectionLostError.
    """
    deadline = time.monotonic() + event.join_within_s
    if until is not None:
        deadline = min(deadline, until)
    role = codec.pack_role(event.rank, 1, event.incarnation, event.epoch, mailbox)
    wires: List[Wire] = []
    try:
        joining = _Joining(wires, event, deadline)
        for number, address in enumerate(event.switches):
            joining.connect(number, address, role)
        return joining.wait_for_start()
    except BaseException:
        for wire in wires:
            wire.close()
        raise


class _Joining:
    """The connections of a pack whose job has not started."""

    def __init__(self, wires: List[Wire], event: Event, deadline: float) -> None:
        self._wires = wires
        self._event = event
        self._deadline = deadline
        self._welcomes: List[Welcome] = []
        self._starts: List[Optional[Start]] = []
        self._beat_at = 0.0

    def connect(self, number: int, address: str, role: bytes) -> None:
        begun = time.monotonic()
        place, pin = known = addresses.parse(address)
        while True:
            left = self._deadline - time.monotonic()
            try:
                connected = socket.create_connection(known.host_and_port(), timeout=max(0.01, min(left, _ATTEMPT_S)))
                break
            except OSError as error:
                if time.monotonic() + _PAUSE_S >= self._deadline:
                    raise UnreachableError(
                        f"rank {self._event.rank}: cannot reach the switch at {place} after "
                        f"{time.monotonic() - begun:.0f} s: {error}; is \"lswitch serve\" running there?"
                    ) from error
            self._beat()
            time.sleep(_PAUSE_S)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Only who has an address with a fingerprint needs what TLS takes to load.
        wire = Wire(connected if pin is None else _seal(connected, place, pin), place, number)
        self._wires.append(wire)
        # The port may be another process's by now, which must neither learn the token nor give this one calls.
        event, nonce = self._event, os.urandom(NONCE_LEN)
        hello = codec.hello(CRC32, RELEASE, event.job, event.expiry_s, event.code, role, nonce)
        wire.push(PREAMBLE + control(HELLO, hello))
        wire.flush()
        self._expect_preamble(wire)
        header, body = self._frame(wire)
        if header.kind != WELCOME:
            raise _ending(wire, header, body)
        welcome = codec.welcome(body)
        if not is_proved(event.code, nonce, welcome.proof):
            raise UnreachableError(
                f"rank {event.rank}: what answers at {place} does not know the job's secret, so it is not the job's switch: "
                "another process listens there now; is the job's driver still running?"
            )
        wire.crc32 = bool(welcome.features & CRC32)
        self._welcomes.append(welcome)
        self._starts.append(None)

    def wait_for_start(self) -> Joined:
        while True:
            for wire in self._wires:
                while self._starts[wire.number] is None:
                    frame = wire.next_frame()
                    if frame is None:
                        break
                    header, body = frame
                    if header.kind == START:
                        self._starts[wire.number] = codec.start(body)
                    elif header.kind != HEARTBEAT:
                        raise _ending(wire, header, body)
            missing = [wire for wire in self._wires if self._starts[wire.number] is None]
            if not missing:
                return self._joined()
            self._read(missing)

    def _joined(self) -> Joined:
        starts = [start for start in self._starts if start is not None]
        if not all(start.same_packs(starts[0]) for start in starts):
            raise ProtocolError(f"the switches {', '.join(self._event.switches)} do not name the same packs")
        # Each vector is cut for the switch with the least memory.
        start = starts[0]._replace(segment=min(start.segment for start in starts))
        welcome = Welcome(
            self._welcomes[0].version,
            0,
            min(welcome.heartbeat_ms for welcome in self._welcomes),
            max(welcome.lost_after_ms for welcome in self._welcomes),
        )
        return Joined(self._wires, welcome, start)

    def _expect_preamble(self, wire: Wire) -> None:
        while True:
            found = bytes(wire.view[wire.begin : min(wire.end, wire.begin + len(PREAMBLE))])
            if not PREAMBLE.startswith(found):
                raise UnreachableError(f"what listens at {wire.address} is no lswitch switch; check the address")
            if found == PREAMBLE:
                wire.begin += len(PREAMBLE)
                return
            self._read([wire])

    def _frame(self, wire: Wire) -> Tuple[Header, memoryview]:
        while True:
            frame = wire.next_frame()
            if frame is not None:
                return frame
            self._read([wire])

    def _read(self, wires: List[Wire]) -> None:
        """Reads what comes on some wires, for a while, and gives signs of life on all."""
        self._beat()
        now = time.monotonic()
        if now >= self._deadline:
            raise ConnectionLostError(
                f"rank {self._event.rank}: the job did not start within {self._event.join_within_s:g} s: "
                "not all of its ranks have joined"
            )
        poller = select.poll()
        for wire in wires:
            poller.register(wire.socket, select.POLLIN)
        readable = {fd for fd, _ in poller.poll(1000 * max(0.001, min(0.5, self._deadline - now)))}
        for wire in wires:
            if wire.socket.fileno() in readable:
                wire.fill()
            elif time.monotonic() - wire.heard > self._silence_s():
                raise ConnectionLostError(
                    f"the switch at {wire.address} was silent for {self._silence_s():g} s"
                )

    def _beat(self) -> None:
        now = time.monotonic()
        if now >= self._beat_at and self._welcomes:
            self._beat_at = now + min(welcome.heartbeat_ms for welcome in self._welcomes) / 1000
            for wire in self._wires[: len(self._welcomes)]:
                wire.push(control(HEARTBEAT))
                wire.flush()

    def _silence_s(self) -> float:
        return max([welcome.lost_after_ms for welcome in self._welcomes] or [10000]) / 1000


def _ending(wire: Wire, header: Header, body: memoryview) -> LswitchError:
    """The error that a last frame stands for."""
    if header.kind == REFUSED:
        return RefusedError(*codec.refused(body))
    if header.kind == END:
        return ConnectionLostError(f"the job was ended: {codec.end(body)}")
    return ProtocolError(f"the switch at {wire.address} sent a frame of kind {header.kind:#04x} at the wrong time")


def _seal(connected: socket.socket, place: str, pin: bytes) -> "SealedSocket":
    from .tls import seal

    return seal(connected, place, pin)
