"""What the driver of a farm and its workers say to each other, as docs/FARM.md has it. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

from .errors import ProtocolError

#: Of all messages of a farm.
TAG = 1

# Orders
RUN, CANCEL, LEAVE = range(3)

# How a task ended
DONE, FAILED, FAILED_FOR_GOOD = range(3)

#: kind, how often the task has failed, its number
ORDER = struct.Struct("<IIQ")
#: how it ended, 0, the task's number, microseconds
ANSWER = struct.Struct("<IIQQ")

#: The longest payload of a task or an answer, in bytes.
PAYLOAD_MAX = 8 << 20


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
    if kind > LEAVE or kind != RUN and len(data) != ORDER.size:
        raise ProtocolError(f"the driver gave the order {kind} with {len(data)} bytes, which this worker does not understand")
    return Order(kind, failures, task, data[ORDER.size :])
