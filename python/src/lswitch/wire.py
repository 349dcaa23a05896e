"""One connection to a switch: bytes that gather until they are written, and bytes that were read until they are frames.

The socket does not block. Who writes holds the pack's lock; who reads, its reading lock.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, List, Optional, Tuple, Union

from .errors import ConnectionLostError, LswitchError, ProtocolError
from .frame import BODY_MAX, CONTROL_MAX, HEADER, HEADER_LEN, Header, body_max

if TYPE_CHECKING:
    from .tls import SealedSocket

#: What is gathered before it is written without being asked, in bytes: longer writes save nothing.
GATHERED_MAX = 64 * 1024

#: What may wait to be written while the socket takes nothing, in bytes, before senders wait too.
WAITING_MAX = 512 * 1024

#: The buffer of bytes that were read: a few reads, and more than any frame.
_BUFFER_LEN = 512 * 1024
assert _BUFFER_LEN > 32 + CONTROL_MAX


class Wire:
    """See the module."""

    def __init__(self, connected: Union[socket.socket, "SealedSocket"], address: str, number: int) -> None:
        connected.setblocking(False)
        self.socket = connected
        self.address = address
        self.number = number
        #: Does the switch know checksums by CRC-32?
        self.crc32 = False
        self.heard = time.monotonic()
        #: The switch has let this client go.
        self.left = False
        #: Nothing more is read.
        self.closed = False
        self._parts: List[bytes] = []
        self._rest: Optional[memoryview] = None
        #: Bytes that wait to be written.
        self.waiting = 0
        self._write_failed = False
        self.buffer = bytearray(_BUFFER_LEN)
        self.view = memoryview(self.buffer)
        self.begin = 0
        self.end = 0

    def push(self, data: bytes) -> None:
        """Adds to what is written next."""
        self._parts.append(data)
        self.waiting += len(data)

    def flush(self) -> bool:
        """Writes what the socket takes. True if nothing is left."""
        if not self.waiting:
            return True
        if self._write_failed:
            self._drop()
            return True
        try:
            while True:
                if self._rest is None:
                    if not self._parts:
                        return True
                    parts = self._parts
                    self._rest = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
                    self._parts = []
                sent = self.socket.send(self._rest)
                self.waiting -= sent
                self._rest = self._rest[sent:] if sent < len(self._rest) else None
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            # Why the connection ended is on the reading side, where a last frame may lie.
            self._write_failed = True
            self._drop()
            return True

    def fill(self) -> bool:
        """Reads once. False if nothing was there.

        Raises ConnectionLostError at the connection's end.
        """
        if self.begin == self.end:
            self.begin = self.end = 0
        elif _BUFFER_LEN - self.end < HEADER_LEN + CONTROL_MAX:
            rest = bytes(self.view[self.begin : self.end])
            self.view[: len(rest)] = rest
            self.begin, self.end = 0, len(rest)
        try:
            count = self.socket.recv_into(self.view[self.end :])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise ConnectionLostError(f"the connection to the switch at {self.address} failed: {error}") from error
        if count == 0:
            raise ConnectionLostError(f"the connection to the switch at {self.address} was closed")
        self.end += count
        return True

    def next_frame(self) -> Optional[Tuple[Header, memoryview]]:
        """The next frame of what was read, if it is there in whole. Its body is good until the next `fill`."""
        if self.end - self.begin < HEADER_LEN:
            return None
        header = Header._make(HEADER.unpack_from(self.buffer, self.begin))
        if header.length > BODY_MAX and header.length > body_max(header.kind):
            raise self.too_long(header.kind, header.length)
        body = self.begin + HEADER_LEN
        if self.end - body < header.length:
            return None
        self.begin = body + header.length
        self.heard = time.monotonic()
        return header, self.view[body : self.begin]

    def too_long(self, kind: int, length: int) -> LswitchError:
        return ProtocolError(f"the switch at {self.address} sent a frame of kind {kind:#04x} with {length} bytes")

    def close(self) -> None:
        self.closed = True
        self._drop()
        self.socket.close()

    def _drop(self) -> None:
        self._parts.clear()
        self._rest = None
        self.waiting = 0
