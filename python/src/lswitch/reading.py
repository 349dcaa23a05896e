"""What comes from the switches: frames to messages, grants, credit, answers, and the end."""

from __future__ import annotations

import select
import threading
import time
from typing import Dict, List, Optional, Tuple
from zlib import crc32

from . import codec
from .checksum import crc32c
from .errors import ConnectionLostError, LswitchError, ProtocolError, RefusedError
from .flow import BY_GRANT, Announced, Channel, Credit, Room
from .frame import ANNOUNCE, BODY_MAX, CHECKED_BY_CRC32, COMBINED, CREDIT, DATA, END, FIRST, GRANT, HEADER, HEADER_LEN
from .frame import CHECKSUM_LEN, CHUNK_MAX, HEARTBEAT, LAST, LEFT, MESSAGE_COST, MESSAGE_MAX, PART_LEN, REFUSED, SKIPPABLE, STATE, TOTAL_LEN, U32, U64
from .frame import chunk_parts, cost
from .join import Joined
from .mailbox import Mailbox, Message
from .peer import Partial, Peer, Peers
from .wire import Wire

_LONE = FIRST | LAST
_ENDS_LEN = TOTAL_LEN + CHECKSUM_LEN


class Reading:
    """The reading half of a rank; `Comm` is the other. Its calls need the lock, `pump` the reading lock alone."""

    rank: int
    epoch: int
    lock: threading.Lock
    reading: threading.Lock

    def push(self, wire: Wire, data: bytes) -> None:
        """Adds to what is written; the lock is held."""
        raise NotImplementedError

    def __init__(self, joined: Joined, peers: Peers) -> None:
        self.wires: List[Wire] = joined.wires
        self.peers = peers
        self.segment = joined.start.segment
        self.room = Room(peers.mailbox, peers.packs.count)
        self.mailbox = Mailbox()
        #: Why the job or the connection ended: the first cause.
        self.failure: Optional[LswitchError] = None
        #: LEAVE is said: nothing may be sent any more.
        self.leaving = False
        #: Collectives: the operations of contributions without an answer, and answers (total, data), by switch and number.
        self.due: Dict[Tuple[int, int], int] = {}
        self.answers: Dict[Tuple[int, int], Tuple[int, bytes]] = {}
        #: Requests of the shared state: None until the reply comes.
        self.replies: Dict[int, Optional[bytes]] = {}
        self._by_number = {wire.socket.fileno(): wire for wire in self.wires}
        self._poller = select.poll()
        self._watched_for_writing = False
        for wire in self.wires:
            self._poller.register(wire.socket, select.POLLIN)

    def take(self, source: Optional[int], channel: Channel) -> Optional[Message]:
        """A message that has come, for the program."""
        entry = self.mailbox.take(source, channel)
        if entry is None:
            return None
        self.room.taken(entry.passage, len(entry.data) + 64)
        if self.room.signals:
            self.signal()
        return Message(entry.source, channel[1], entry.data)

    def take_many(self, source: int, channel: Channel, bytes_max: int) -> List[bytes]:
        """Messages of one source that have come, for the program."""
        entries = self.mailbox.take_many(source, channel, bytes_max)
        on_credit = 0
        passage = BY_GRANT
        for entry in entries:
            if entry.passage >= 0:
                passage = entry.passage
                on_credit += len(entry.data) + MESSAGE_COST
            else:
                self.room.taken(entry.passage, cost(len(entry.data)))
        if on_credit:
            self.room.taken(passage, on_credit)
        if self.room.signals:
            self.signal()
        return [entry.data for entry in entries]

    def fail(self, error: LswitchError) -> None:
        """The first failure is the reason; the lock is not held."""
        with self.lock:
            self._fail(error)

    def pump(self, wire: Wire) -> None:
        """Reads a connection once and takes in what came. The reading lock is held."""
        if wire.closed or wire.left:
            return
        try:
            if wire.fill():
                with self.lock:
                    self._take_in(wire)
        except LswitchError as error:
            self.fail(error)

    def take_in_what_was_read(self) -> None:
        """What came along with START lies in the buffers already, and no socket tells of it."""
        with self.reading:
            for wire in self.wires:
                try:
                    with self.lock:
                        self._take_in(wire)
                except LswitchError as error:
                    self.fail(error)

    def flush_wires(self) -> bool:
        """Writes what was gathered, as far as the sockets take it. True if nothing is left."""
        drained = True
        for wire in self.wires:
            if wire.waiting and not wire.flush():
                drained = False
        return drained

    def signal(self) -> None:
        """Tells others what the room has to say."""
        signals, self.room.signals = self.room.signals, []
        if self.leaving:
            return
        for signal in signals:
            if isinstance(signal, Credit):
                peer = self.peers.of_pack(signal.pack)
                head = HEADER.pack(CREDIT, 0, 0, self.epoch, 0, self.rank, peer.rank, 0, 8)
                self.push(peer.wire, head + U64.pack(signal.amount))
            else:
                peer = self.peers.of(signal.source)
                head = HEADER.pack(GRANT, 0, 0, self.epoch, 0, self.rank, peer.rank, signal.sequence, 0)
                self.push(peer.wire, head)

    def stop_receiving(self) -> None:
        """The program receives no more: everybody who wants to send to it may, and what comes is dropped."""
        self.room.close([(entry.passage, cost(len(entry.data))) for entry in self.mailbox.clear()])
        self.signal()
        self.leaving = True

    def _read(self, seconds: float, drained: bool) -> None:
        """Waits for the sockets and reads them. The reading lock is held."""
        poller = self._poller
        if drained == self._watched_for_writing:
            self._watched_for_writing = not drained
            for wire in self._by_number.values():
                poller.modify(wire.socket, select.POLLIN if drained else select.POLLIN | select.POLLOUT)
        found = poller.poll(seconds * 1000)
        for number, event in found:
            if event & ~select.POLLOUT:
                wire = self._by_number[number]
                self.pump(wire)
                if wire.left or self.failure is not None:
                    poller.unregister(number)
                    del self._by_number[number]
        if not self._by_number and not found:
            # Nothing is left to wait for: whoever looks finds the failure.
            time.sleep(min(seconds, 0.001))

    def _fail(self, error: LswitchError) -> None:
        if self.failure is None:
            self.failure = error

    def _take_in(self, wire: Wire) -> None:
        """Takes in the whole frames that were read."""
        buffer, begin, end = wire.buffer, wire.begin, wire.end
        view = wire.view
        unpack, total_of, checksum_of = HEADER.unpack_from, U64.unpack_from, U32.unpack_from
        while end - begin >= HEADER_LEN:
            kind, flags, group, epoch, tag, source, destination, sequence, length = unpack(buffer, begin)
            if length > BODY_MAX:
                raise wire.too_long(kind, length)
            body = begin + HEADER_LEN
            begin = body + length
            if begin > end:
                begin = body - HEADER_LEN
                break
            if kind == DATA:
                if destination != self.rank or epoch != self.epoch:
                    raise ProtocolError(
                        f"a message for rank {destination} in epoch {epoch} came to rank {self.rank} in epoch {self.epoch}"
                    )
                peer = self.peers.of(source)
                if sequence != peer.next_in:
                    raise ProtocolError(
                        f"message {sequence} from rank {source} to rank {destination} arrived where number "
                        f"{peer.next_in} was due"
                    )
                if flags & _LONE == _LONE and peer.partial is None and _ENDS_LEN <= length <= _ENDS_LEN + CHUNK_MAX:
                    # Most messages are one chunk.
                    (total,) = total_of(buffer, body)
                    (checksum,) = checksum_of(buffer, begin - CHECKSUM_LEN)
                    passage = self.room.begins(source, peer.pack, sequence, total + MESSAGE_COST)
                    data = bytes(view[body + TOTAL_LEN : begin - CHECKSUM_LEN])
                    self._whole(peer, flags, (group, tag), data, total, checksum, passage)
                else:
                    self._chunk(peer, flags, (group, tag), view[body:begin])
            elif kind != HEARTBEAT:
                header = (kind, flags, group, tag, source, destination, sequence)
                if not self._other(wire, header, view[body:begin]):
                    break
        wire.begin = begin
        wire.heard = time.monotonic()
        if self.room.signals:
            self.signal()

    def _chunk(self, peer: Peer, flags: int, channel: Channel, body: memoryview) -> None:
        sequence = peer.next_in
        total, piece, checksum = chunk_parts(flags, body)
        partial = peer.partial
        if flags & FIRST:
            if partial is not None:
                raise self._broken(peer, "it begins twice")
            if total > MESSAGE_MAX:
                raise self._broken(peer, f"it names {total} bytes, over the limit of {MESSAGE_MAX}")
            passage = self.room.begins(peer.rank, peer.pack, sequence, cost(total))
            partial = peer.partial = Partial(total, channel, passage, flags & CHECKED_BY_CRC32)
        elif partial is None:
            raise self._broken(peer, "its first chunk is missing")
        if partial.channel != channel or partial.by_crc32 != flags & CHECKED_BY_CRC32:
            raise self._broken(peer, "its chunks differ in group, tag or checksum")
        if len(partial.data) + len(piece) > partial.total:
            raise self._broken(peer, f"it is longer than the {partial.total} bytes it named")
        partial.data += piece
        if flags & LAST:
            peer.partial = None
            self._whole(peer, flags, channel, bytes(partial.data), partial.total, checksum, partial.passage)

    def _whole(
        self, peer: Peer, flags: int, channel: Channel, data: bytes, total: int, checksum: int, passage: int
    ) -> None:
        if len(data) != total:
            raise self._broken(peer, f"it has {len(data)} bytes and named {total}")
        found = crc32(data) if flags & CHECKED_BY_CRC32 else crc32c(data)
        if found != checksum:
            raise self._broken(peer, f"its checksum is {checksum:#010x} and should be {found:#010x}")
        peer.next_in += 1
        if passage == BY_GRANT:
            self.room.came(peer.rank, cost(total))
        if self.leaving:
            self.room.dropped(passage, cost(total))
        else:
            self.mailbox.put(peer.rank, channel, data, passage)

    def _broken(self, peer: Peer, what: str) -> ProtocolError:
        return ProtocolError(f"message {peer.next_in} from rank {peer.rank} to rank {self.rank} is broken: {what}")

    def _other(self, wire: Wire, header: Tuple[int, int, int, int, int, int, int], body: memoryview) -> bool:
        """Any frame but data. False if the connection ends with it."""
        kind, flags, group, tag, source, destination, sequence = header
        if kind == CREDIT and len(body) == 8:
            peer = self.peers.of(source)
            (amount,) = U64.unpack(body)
            if amount > peer.used:
                raise ProtocolError(f"rank {source} gave back {amount} bytes of credit where {peer.used} were used")
            peer.used -= amount
        elif kind == ANNOUNCE and len(body) == 8:
            (total,) = U64.unpack(body)
            if total > MESSAGE_MAX or destination != self.rank:
                raise ProtocolError(f"rank {source} announced {total} bytes to rank {destination}")
            # A rank that there is not is found here.
            peer = self.peers.of(source)
            self.room.announced(Announced(peer.rank, (group, tag), sequence, cost(total)))
        elif kind == GRANT:
            self.peers.of(source).grant(sequence)
        elif kind == COMBINED and len(body) >= PART_LEN:
            call = (wire.number, sequence)
            if self.due.pop(call, None) != tag:
                raise ProtocolError(f"the switch at {wire.address} answered a contribution that was not made")
            (total,) = U64.unpack_from(body, 0)
            self.answers[call] = (total, bytes(body[PART_LEN:]))
        elif kind == STATE and sequence in self.replies and self.replies[sequence] is None:
            self.replies[sequence] = bytes(body)
        elif kind == LEFT and self.leaving:
            wire.left = True
            return False
        elif kind == END:
            self._fail(ConnectionLostError(f"rank {self.rank}: the job was ended: {codec.end(body)}"))
            return False
        elif kind == REFUSED:
            self._fail(RefusedError(*codec.refused(body)))
            return False
        elif not (flags & SKIPPABLE and kind not in _KNOWN):
            raise ProtocolError(
                f"the switch at {wire.address} sent a frame of kind {kind:#04x} with {len(body)} bytes at the wrong time"
            )
        return True


_KNOWN = frozenset([*range(0x01, 0x0B), *range(0x10, 0x17)])
