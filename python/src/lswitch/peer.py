"""What a rank knows of each other rank: the way to it, the numbers of messages both ways, credit."""

from __future__ import annotations

from typing import Dict, Optional

from .errors import ProtocolError
from .flow import DRIVERS, Channel, share
from .frame import DRIVER
from .join import Joined
from .routing import Packs, switch_of_pair
from .wire import Wire


class Partial:
    """A message of which chunks are missing."""

    __slots__ = ("total", "channel", "passage", "by_crc32", "data")

    def __init__(self, total: int, channel: Channel, passage: int, by_crc32: int) -> None:
        self.total = total
        self.channel = channel
        self.passage = passage
        self.by_crc32 = by_crc32
        #: What has come: memory grows with it, and not with the total that a first chunk names.
        self.data = bytearray()


class Peer:
    """Another rank, or the driver."""

    __slots__ = ("rank", "pack", "wire", "share", "used", "next_out", "next_in", "partial", "awaits", "granted")

    def __init__(self, rank: int, pack: int, wire: Wire, share: int) -> None:
        self.rank = rank
        #: The number of its pack, or `DRIVERS`.
        self.pack = pack
        self.wire = wire
        #: The credit of this pack there, and what of it is used.
        self.share = share
        self.used = 0
        self.next_out = 0
        self.next_in = 0
        self.partial: Optional[Partial] = None
        #: The number of the announced message, and whether it is granted.
        self.awaits: Optional[int] = None
        self.granted = False

    def grant(self, sequence: int) -> None:
        if self.awaits != sequence or self.granted:
            raise ProtocolError(f"rank {self.rank} granted message {sequence}, which was not announced to it")
        self.granted = True

    def take_grant(self, sequence: int) -> bool:
        """Has the grant of this message come? Then it is used up."""
        if self.awaits != sequence or not self.granted:
            return False
        self.awaits, self.granted = None, False
        return True


class Peers:
    """All others, each from when it is first spoken with."""

    def __init__(self, rank: int, joined: Joined, mailbox: int) -> None:
        self.packs = Packs(joined.start)
        self.rank = rank
        self.number = 0 if self.packs.elastic else self.packs.number_of(rank)
        #: The mailbox of this rank itself.
        self.mailbox = mailbox
        self._driver_mailbox = joined.start.driver_mailbox
        self._wires = joined.wires
        self._peers: Dict[int, Peer] = {}

    def of(self, rank: int) -> Peer:
        """Raises ProtocolError if there is no such rank."""
        peer = self._peers.get(rank)
        return self._add(rank) if peer is None else peer

    def of_pack(self, number: int) -> Peer:
        """The first rank of a pack, or the driver."""
        return self.of(DRIVER if number == DRIVERS else self.packs.span(number).first_rank)

    def _add(self, rank: int) -> Peer:
        packs, wires = self.packs, self._wires
        if rank == DRIVER:
            # In an elastic job nobody knows how many packs there are, and each has the whole.
            peer = Peer(rank, DRIVERS, wires[0], share(self._driver_mailbox, packs.count))
        elif 0 <= rank < packs.size:
            pack = packs.number_of(rank)
            wire = wires[switch_of_pair(self.number, pack, len(wires))]
            peer = Peer(rank, pack, wire, share(packs.mailbox_of(rank), packs.count))
        elif packs.elastic:
            raise ProtocolError(f"a frame names rank {rank} in an elastic job, whose ranks know the driver alone")
        else:
            raise ProtocolError(f"a frame names rank {rank} in a job of {packs.size} ranks")
        self._peers[rank] = peer
        return peer
