"""What the driver of a farm and its workers say to each other, as docs/FARM.md has it. Pure."""

from __future__ import annotations

import struct
from typing import List, NamedTuple

from .errors import ProtocolError

#: Of all messages of a farm.
TAG = 1

# Orders
RUN, CANCEL, LEAVE, PIECE = range(4)

# How a task ended; or that there is more of its result
DONE, FAILED, FAILED_FOR_GOOD, MORE = range(4)

#: kind, how often the task has failed, its number
ORDER = struct.Struct("<IIQ")
#: how it ended, 0, the task's number, microseconds
ANSWER = struct.Struct("<IIQQ")

#: The longest payload of one message, in bytes. What is longer travels in pieces.
PIECE_MAX = 8 << 20

#: The longest payload of a task or an answer, in bytes.
PAYLOAD_MAX = 256 << 20


class Order(NamedTuple):
    """What the driver wants of a worker."""

    kind: int
    failures: int
    task: int
    payload: bytes


def order(data: bytes) -> Order:
    """Raises ProtocolError if it is none."""
    if len(data) < ORDER.size:
        raise ProtocolError(f"the driver sent an order of {len(data)} bytes; it has at least {ORDER.size}")
    kind, failures, task = ORDER.unpack_from(data)
    if kind > PIECE or kind in (CANCEL, LEAVE) and len(data) != ORDER.size:
        raise ProtocolError(f"the driver gave the order {kind} with {len(data)} bytes, which this worker does not understand")
    return Order(kind, failures, task, data[ORDER.size :])


def answers(ending: int, task: int, took: int, payload: bytes) -> List[bytes]:
    """The messages that tell how a task ended: one, or several if its result is long."""
    if len(payload) <= PIECE_MAX:
        return [ANSWER.pack(ending, 0, task, took) + payload]
    last = (len(payload) - 1) // PIECE_MAX * PIECE_MAX
    view = memoryview(payload)
    head = ANSWER.pack(MORE, 0, task, 0)
    pieces = [head + view[at : at + PIECE_MAX] for at in range(0, last, PIECE_MAX)]
    return [*pieces, ANSWER.pack(ending, 0, task, took) + view[last:]]
