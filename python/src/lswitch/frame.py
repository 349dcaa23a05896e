"""Frames: the header's layout and the protocol's numbers, as docs/PROTOCOL.md has them. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple, Tuple

from .errors import ProtocolError

PREAMBLE = b"LSWITCH\n"
VERSION = 1

# Kinds
HELLO = 0x01
WELCOME = 0x02
REFUSED = 0x03
START = 0x04
HEARTBEAT = 0x05
LEAVE = 0x06
LEFT = 0x07
END = 0x08
NOTICE = 0x09
ABORT = 0x0A
DATA = 0x10
CONTRIBUTE = 0x11
COMBINED = 0x12
ANNOUNCE = 0x13
GRANT = 0x14
CREDIT = 0x15
STATE = 0x16

# Flags
FIRST = 0x01
LAST = 0x02
CHECKED_BY_CRC32 = 0x04
SKIPPABLE = 0x80

# Features, in HELLO and WELCOME
CRC32 = 0x01
PROOF = 0x02

# Addresses
DRIVER = 0xFFFFFFFF
SWITCH = 0xFFFFFFFE

# Groups
PROGRAM = 0
EXCHANGES = 0xFFFF

# Limits
HEADER_LEN = 32
TOTAL_LEN = 8
CHECKSUM_LEN = 4
CHUNK_MAX = 65536
BODY_MAX = 65548
CONTROL_MAX = 327680
REASON_MAX = 16384
MESSAGE_MAX = 4294967296
MESSAGE_COST = 64
MAILBOX_BYTES = 33554432
RANKS_MAX = 1048576
SWITCHES_MAX = 16
PART_LEN = 12
WINDOW = 4
NO_ROOT = 0xFFFFFFFF
ANSWER_INTERVAL = 16

#: kind, flags, group, epoch, tag, source, destination, sequence, length
HEADER = struct.Struct("<BBHIIIIQI")
#: The same and the total of a message, which a first chunk carries ahead of its payload.
HEADER_AND_TOTAL = struct.Struct("<BBHIIIIQIQ")
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")


class Header(NamedTuple):
    """A frame's header."""

    kind: int
    flags: int
    group: int
    epoch: int
    tag: int
    source: int
    destination: int
    sequence: int
    length: int


def control(kind: int, body: bytes = b"") -> bytes:
    """A control frame of a client."""
    return HEADER.pack(kind, 0, 0, 0, 0, DRIVER, SWITCH, 0, len(body)) + body


def body_max(kind: int) -> int:
    """The longest body that a client takes, in bytes."""
    return CONTROL_MAX if kind == START else BODY_MAX


def chunk_parts(flags: int, body: memoryview) -> Tuple[int, memoryview, int]:
    """Takes a chunk's body apart: the total (or -1), the payload, the checksum (or -1)."""
    total = checksum = -1
    begin, end = 0, len(body)
    if flags & LAST:
        end -= CHECKSUM_LEN
    if flags & FIRST:
        begin = TOTAL_LEN
    if end < begin or end - begin > CHUNK_MAX:
        raise ProtocolError(f"a chunk of {len(body)} bytes with flags {flags:#04x} is too short or too long")
    if flags & FIRST:
        (total,) = U64.unpack_from(body, 0)
    if flags & LAST:
        (checksum,) = U32.unpack_from(body, end)
    return total, body[begin:end], checksum


def cost(length: int) -> int:
    """What a message of so many bytes takes of a mailbox."""
    return length + MESSAGE_COST
