"""Messages that have come and wait to be received, by group and tag, in the order in which they came. Pure."""

from __future__ import annotations

from collections import deque
from typing import Deque, Dict, List, NamedTuple, Optional

from .flow import Channel


class Message(NamedTuple):
    """A message as a program receives it."""

    source: int
    tag: int
    data: bytes


class _Entry:
    """A message, how it was let in, and whether it was taken."""

    __slots__ = ("source", "data", "passage", "taken")

    def __init__(self, source: int, data: bytes, passage: int) -> None:
        self.source = source
        self.data = data
        self.passage = passage
        self.taken = False


class _Line:
    """The messages of one group and tag.

    Who receives from anybody takes the oldest of all, which is the oldest of its source too; who names a source takes the oldest
    of that. So the lines of the sources are taken from in front alone, and only the common one has gaps.
    """

    __slots__ = ("order", "by_source", "live")

    def __init__(self) -> None:
        self.order: Deque[_Entry] = deque()
        self.by_source: Dict[int, Deque[_Entry]] = {}
        self.live = 0

    def put(self, entry: _Entry) -> None:
        self.order.append(entry)
        line = self.by_source.get(entry.source)
        if line is None:
            line = self.by_source[entry.source] = deque()
        line.append(entry)
        self.live += 1

    def take(self, source: Optional[int]) -> Optional[_Entry]:
        order = self.order
        if source is None:
            while order and order[0].taken:
                order.popleft()
            if not order:
                return None
            source = order[0].source
        line = self.by_source.get(source)
        if not line:
            return None
        entry = line.popleft()
        if not line:
            del self.by_source[source]
        entry.taken = True
        self.live -= 1
        if order[0] is entry:
            order.popleft()
        elif len(order) > 2 * self.live + 64:
            # Gaps are a part of what is kept at most.
            self.order = deque(entry for entry in order if not entry.taken)
        return entry


class Mailbox:
    """All of them."""

    def __init__(self) -> None:
        #: By channel; none is empty.
        self.lines: Dict[Channel, _Line] = {}

    def put(self, source: int, channel: Channel, data: bytes, passage: int) -> None:
        line = self.lines.get(channel)
        if line is None:
            line = self.lines[channel] = _Line()
        line.put(_Entry(source, data, passage))

    def take(self, source: Optional[int], channel: Channel) -> Optional[_Entry]:
        line = self.lines.get(channel)
        if line is None:
            return None
        entry = line.take(source)
        if not line.live:
            del self.lines[channel]
        return entry

    def take_many(self, source: Optional[int], channel: Channel, bytes_max: int) -> List[_Entry]:
        """As many as there are, until they have more than so many bytes."""
        line = self.lines.get(channel)
        entries: List[_Entry] = []
        while line is not None and bytes_max > 0:
            entry = line.take(source)
            if entry is None:
                break
            entries.append(entry)
            bytes_max -= len(entry.data)
        if line is not None and not line.live:
            del self.lines[channel]
        return entries

    def clear(self) -> List[_Entry]:
        """Empties it; gives what waited."""
        entries = [entry for line in self.lines.values() for entry in line.order if not entry.taken]
        self.lines.clear()
        return entries
