"""Control messages and the shared state's bodies: fields one after the other, little-endian. Pure.

`Fields` reads and refuses whatever is not exactly the fields; `put_*` write.
"""

from __future__ import annotations

import struct
from typing import List, NamedTuple, Optional, Tuple, Union

from .errors import ProtocolError
from .frame import PROOF, RANKS_MAX, REASON_MAX, U32, U64, VERSION
from .proof import PROOF_LEN, sealed

_HELLO = struct.Struct("<HHQ")
_WELCOME = struct.Struct("<HQII")
_RANKS = struct.Struct("<IIIIII")
#: An entry of START's list.
_RUN_LEN = 16

Bytes = Union[bytes, bytearray, memoryview]


class Fields:
    """The fields of a body, read in turn."""

    def __init__(self, body: Bytes, what: str) -> None:
        self._body = memoryview(body)
        self._at = 0
        self._what = what

    def u8(self) -> int:
        return self._take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self._take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self._take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self._take(8), "little")

    def i64(self) -> int:
        return int.from_bytes(self._take(8), "little", signed=True)

    def fixed(self, length: int) -> bytes:
        return bytes(self._take(length))

    def bytes(self) -> bytes:
        return bytes(self._take(self.u64()))

    def string(self) -> str:
        try:
            return str(self._take(self.u64()), "utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{self._what} holds text that is not UTF-8") from error

    def option_string(self) -> Optional[str]:
        present = self.u8()
        if present > 1:
            raise ProtocolError(f"{self._what} has an option marked {present}")
        return self.string() if present else None

    def end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._body):
            raise ProtocolError(f"{self._what} is {len(self._body) - self._at} bytes too long")

    def _take(self, length: int) -> memoryview:
        taken = self._body[self._at : self._at + length]
        if len(taken) != length:
            raise ProtocolError(f"{self._what} of {len(self._body)} bytes is too short")
        self._at += length
        return taken


def put_bytes(data: Bytes) -> bytes:
    return U64.pack(len(data)) + bytes(data)


def put_string(text: str) -> bytes:
    return put_bytes(text.encode())


def put_reason(text: str) -> bytes:
    """A reason in words, cut to what the protocol takes."""
    data = text.encode("utf-8", "replace")
    if len(data) > REASON_MAX:
        data = data[: REASON_MAX - 4].decode("utf-8", "ignore").encode() + b" ..."
    return put_bytes(data)


class Welcome(NamedTuple):
    """The switch takes the hello."""

    version: int
    features: int
    heartbeat_ms: int
    lost_after_ms: int
    #: That the switch knows the client's token; empty from one that was not asked.
    proof: bytes = b""


class Run(NamedTuple):
    """Packs in a row that are alike."""

    packs: int
    ranks: int
    mailbox: int
    features: int


class Start(NamedTuple):
    """All ranks have joined; in an elastic job, which names no packs, this one has."""

    runs: Tuple[Run, ...]
    driver_mailbox: int
    segment: int

    @property
    def elastic(self) -> bool:
        return not self.runs

    def same_packs(self, other: "Start") -> bool:
        """Do both name the same packs? What features they have is each switch's own matter."""
        return [run[:3] for run in self.runs] == [run[:3] for run in other.runs]


def hello(
    features: int, release: str, job: bytes, expiry: int, code: bytes, role: bytes, nonce: Optional[bytes] = None
) -> bytes:
    """The body of a HELLO. With a nonce it asks for a proof, and does not show the token's code."""
    if nonce is not None:
        features, code = features | PROOF, sealed(code, nonce)
    head = _HELLO.pack(VERSION, VERSION, features) + put_string(release)
    return head + job + U64.pack(expiry) + code + role + (nonce or b"")


def pack_role(first_rank: int, ranks: int, incarnation: int, epoch: int, mailbox: int) -> bytes:
    return _RANKS.pack(1, first_rank, ranks, incarnation, epoch, mailbox)


def driver_role(size: int, mailbox: int, elastic: bool = False) -> bytes:
    return U32.pack(0) + U32.pack(size) + U32.pack(mailbox) + bytes([elastic])


def welcome(body: Bytes) -> Welcome:
    fields, answer = bytes(body[: _WELCOME.size]), bytes(body[_WELCOME.size :])
    if len(fields) != _WELCOME.size:
        raise ProtocolError(f"a WELCOME of {len(body)} bytes, not {_WELCOME.size}")
    found = Welcome(*_WELCOME.unpack(fields), answer)
    if len(answer) != (PROOF_LEN if found.features & PROOF else 0):
        raise ProtocolError(f"a WELCOME of {len(body)} bytes with the features {found.features:#x}")
    if found.version != VERSION:
        raise ProtocolError(f"the switch speaks version {found.version} of the protocol; this client speaks {VERSION}")
    if not (0 < found.heartbeat_ms < found.lost_after_ms):
        raise ProtocolError(f"a WELCOME with heartbeats of {found.heartbeat_ms} ms and {found.lost_after_ms} ms of silence")
    return found


def refused(body: Bytes) -> Tuple[int, str]:
    fields = Fields(body, "a REFUSED")
    code, reason = fields.u32(), fields.string()
    fields.end()
    return code, reason


def end(body: Bytes) -> str:
    fields = Fields(body, "an END")
    reason = fields.string()
    fields.end()
    return reason


def start(body: Bytes) -> Start:
    fields = Fields(body, "a START")
    count = fields.u64()
    if count * _RUN_LEN > len(body):
        raise ProtocolError(f"a START of {len(body)} bytes that names {count} runs of packs")
    runs: List[Run] = []
    ranks = 0
    for _ in range(count):
        run = Run(fields.u32(), fields.u32(), fields.u32(), fields.u32())
        ranks += run.packs * run.ranks
        if run.packs == 0 or run.ranks == 0 or ranks > RANKS_MAX:
            raise ProtocolError(f"a START of {run.packs} packs with {run.ranks} ranks each")
        runs.append(run)
    found = Start(tuple(runs), fields.u32(), fields.u32())
    fields.end()
    if (found.segment == 0) != (not runs) or found.segment % 16:
        raise ProtocolError(f"a START with {len(runs)} runs of packs and segments of {found.segment} bytes")
    return found


def leave(failure: Optional[str]) -> bytes:
    return b"\0" if failure is None else b"\1" + put_reason(failure)


def progress(superstep: int, measure: float) -> bytes:
    """What a rank tells the driver meanwhile."""
    return struct.pack("<IQd", 0, superstep, measure)


def usage(memory_mb: int, arm: bool, elapsed_ms: int) -> bytes:
    """What a pack tells the driver of what it has taken. Requests to S3 are its user's own, and nobody counts them."""
    return struct.pack("<II?QQQ", 2, memory_mb, arm, elapsed_ms, 0, 0)


def result(data: Bytes) -> bytes:
    """What a rank tells the driver at last."""
    return U32.pack(1) + put_bytes(data)
