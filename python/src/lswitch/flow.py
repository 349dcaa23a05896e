"""Flow control of the receiving side: who is granted what, and who gets how much credit back. Pure.

A rank lends its mailbox to those who send to it. Each pack has an equal share, on which it sends without asking; what it
has no credit for it announces, and sends when it is granted. `Room` says what to tell whom; `docs/PROTOCOL.md`, "Flow control".
"""

from __future__ import annotations

from collections import deque
from typing import Deque, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

from .errors import ProtocolError

#: A group and a tag.
Channel = Tuple[int, int]


class Announced(NamedTuple):
    """A message that waits to be granted."""

    source: int
    channel: Channel
    sequence: int
    cost: int


class Wanted(NamedTuple):
    """What a receive waits for: from whom (None: anybody), with which group and tag (None: any)."""

    source: Optional[int]
    channel: Optional[Channel]

    def matches(self, message: Announced) -> bool:
        return (self.source is None or self.source == message.source) and (
            self.channel is None or self.channel == message.channel
        )


#: While a rank waits to send, and promises to keep whatever comes.
ANYTHING = Wanted(None, None)


class Grant(NamedTuple):
    """The announced message may be sent."""

    source: int
    sequence: int


class Credit(NamedTuple):
    """A pack, or the driver, gets so many bytes of credit back."""

    pack: int
    amount: int


Signal = Union[Grant, Credit]

#: Passages: how a message came to be sent. One on credit has the number of its pack instead; the driver is counted as a pack
#: of the first number that is none.
BY_GRANT = -1
LOCAL = -2
DRIVERS = 1 << 32


class Room:
    """The room of one rank for messages that wait to be received."""

    def __init__(self, mailbox: int, packs: int) -> None:
        self._mailbox = mailbox
        self._share = share(mailbox, packs)
        #: In an elastic job the whole mailbox is the driver's; else it has no credit.
        self._elastic = packs == 0
        #: Credit in use, by pack: of messages that have come and were not given back for.
        self._lent: Dict[int, int] = {}
        #: The part of it that is of taken messages.
        self._owed: Dict[int, int] = {}
        #: Bytes of granted messages that were not taken.
        self._granted = 0
        self._local = 0
        self._announced: Deque[Announced] = deque()
        self._announcers: Dict[int, int] = {}
        #: Granted messages that have not come in whole, by source: a source has one at a time.
        self._under_way: Dict[int, Announced] = {}
        self._closed = False
        #: What the rank waits for just now.
        self.wanted: Optional[Wanted] = None
        #: What is to be told, and to whom.
        self.signals: List[Signal] = []

    def announced(self, message: Announced) -> None:
        if message.source in self._announcers:
            raise ProtocolError(f"rank {message.source} announced two messages at once")
        self._announcers[message.source] = message.sequence
        self._announced.append(message)
        self.look(self.wanted)

    def begins(self, source: int, pack: int, sequence: int, cost: int) -> int:
        """A message begins to arrive; gives its passage.

        Raises ProtocolError when it is more than it was lent: memory is bounded by this.
        """
        message = self._under_way.get(source) if self._under_way else None
        if message is not None and message.sequence == sequence:
            if cost > message.cost:
                raise ProtocolError(f"rank {source} sent {cost} bytes where {message.cost} were granted")
            return BY_GRANT
        lent = self._lent.get(pack, 0) + cost
        if lent > self._share or pack == DRIVERS and not self._elastic:
            whom = "the driver" if pack == DRIVERS else f"rank {source}"
            raise ProtocolError(f"{whom} sent a message for which it had no credit, and no grant")
        self._lent[pack] = lent
        return pack

    def came(self, source: int, cost: int) -> None:
        """A granted message has come in whole, and is kept until the program takes it."""
        self._granted += cost - self._under_way.pop(source).cost
        del self._announcers[source]

    def taken(self, passage: int, cost: int) -> None:
        """The program has taken a message."""
        if passage >= 0:
            owed = self._owed.get(passage, 0) + cost
            # Half a share at a time: seldom for small messages, soon enough for a sender not to run dry.
            if owed * 2 >= self._share:
                self._give_back(passage, owed)
                owed = 0
            self._owed[passage] = owed
        elif passage == BY_GRANT:
            self._granted -= cost
            if self._announced:
                self.look(None)
        else:
            self._local -= cost

    def admit_local(self, cost: int) -> bool:
        """Is there room for a message of the rank to itself? A lone one is let in whatever its length."""
        if self._local and self._local + cost > self._mailbox:
            return False
        self._local += cost
        return True

    def close(self, waiting: Iterable[Tuple[int, int]]) -> None:
        """The rank receives no more: whoever wants to send to it may, and credit is given back.

        `waiting` are the passages and costs of the messages that nobody takes.
        """
        self._closed = True
        for passage, cost in waiting:
            if passage >= 0:
                self._owed[passage] = self._owed.get(passage, 0) + cost
        for pack, owed in self._owed.items():
            if owed:
                self._give_back(pack, owed)
        self._owed.clear()
        self.look(None)

    def dropped(self, passage: int, cost: int) -> None:
        """A message came after the end."""
        if passage >= 0:
            self._give_back(passage, cost)

    def look(self, wanted: Optional[Wanted]) -> None:
        """Grants what is waited for, and what there is room for."""
        if not self._announced:
            return
        # One match at a time: a rank whose receives are served otherwise would grant without end.
        if wanted is not None and not any(wanted.matches(message) for message in self._under_way.values()):
            for at, message in enumerate(self._announced):
                if wanted.matches(message):
                    del self._announced[at]
                    self._grant(message)
                    break
        while self._announced and (
            self._closed or self._granted + self._announced[0].cost <= self._mailbox
        ):
            self._grant(self._announced.popleft())

    def _grant(self, message: Announced) -> None:
        self._granted += message.cost
        self._under_way[message.source] = message
        self.signals.append(Grant(message.source, message.sequence))

    def _give_back(self, pack: int, amount: int) -> None:
        self._lent[pack] = self._lent.get(pack, 0) - amount
        self.signals.append(Credit(pack, amount))


def share(mailbox: int, packs: int) -> int:
    """The credit that each of so many packs has at a rank with such a mailbox."""
    return mailbox // max(packs, 1)

