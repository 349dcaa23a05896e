"""A message to the frames that carry it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

from .checksum import crc32c
from .frame import CHECKED_BY_CRC32, CHECKSUM_LEN, CHUNK_MAX, DATA, FIRST, HEADER, HEADER_AND_TOTAL, LAST, TOTAL_LEN
from .frame import U32, U64

if TYPE_CHECKING:
    from .comm import Comm
    from .peer import Peer

_ENDS_LEN = TOTAL_LEN + CHECKSUM_LEN
_ALL = FIRST | LAST
_ALL_BY_CRC32 = FIRST | LAST | CHECKED_BY_CRC32




def write_small(comm: "Comm", peer: "Peer", group: int, tag: int, sequence: int, data: bytes) -> bytes:
    """A message in one chunk."""
    length = len(data)
    if peer.wire.crc32:
        flags, checksum = _ALL_BY_CRC32, crc32(data)
    else:
        flags, checksum = _ALL, crc32c(data)
    head = HEADER_AND_TOTAL.pack(
        DATA, flags, group, comm.epoch, tag, comm.rank, peer.rank, sequence, length + _ENDS_LEN, length
    )
    return head + data + U32.pack(checksum)


def write_message(comm: "Comm", peer: "Peer", group: int, tag: int, sequence: int, data: bytes) -> None:
    """Pushes a message of any length, and waits while the connection takes nothing. The lock is not held.

    The checksum comes last, so that it is computed while the first chunks are on their way.
    """
    wire = peer.wire
    # The reader must know from the first chunk on.
    by_crc32 = CHECKED_BY_CRC32 if wire.crc32 else 0
    view = memoryview(data)
    total = len(data)
    begin = 0
    while True:
        end = min(total, begin + CHUNK_MAX)
        piece = view[begin:end]
        flags, tail = by_crc32, b""
        if end == total:
            flags |= LAST
            tail = U32.pack(crc32(data) if by_crc32 else crc32c(data))
        if begin == 0:
            flags |= FIRST
        length = len(piece) + len(tail) + (TOTAL_LEN if begin == 0 else 0)
        head = HEADER.pack(DATA, flags, group, comm.epoch, tag, comm.rank, peer.rank, sequence, length)
        if begin == 0:
            head += U64.pack(total)
        with comm.lock:
            if comm.failure is not None:
                raise comm.failure.with_traceback(None)
            comm.push(wire, b"".join((head, piece, tail)))
        comm.room_to_write(wire, lambda: f"room to send to rank {peer.rank}")
        begin = end
        if begin == total:
            return
