"""Which pack a rank is of, and which switch a pair of packs or a name uses. Pure."""

from __future__ import annotations

from bisect import bisect_right
from typing import Iterator, List, NamedTuple

from .checksum import crc32c
from .codec import Start


class Span(NamedTuple):
    """The ranks of a pack."""

    first_rank: int
    ranks: int


class Packs:
    """The packs of a job by rising rank, kept as START tells them: in runs."""

    def __init__(self, start: Start) -> None:
        self._runs = start.runs
        #: They know nothing of each other.
        self.elastic = start.elastic
        self._first_ranks: List[int] = []
        self._first_packs: List[int] = []
        self.count = 0
        self.size = 0
        for run in start.runs:
            self._first_ranks.append(self.size)
            self._first_packs.append(self.count)
            self.count += run.packs
            self.size += run.packs * run.ranks

    def number_of(self, rank: int) -> int:
        """The number of a rank's pack."""
        at = bisect_right(self._first_ranks, rank) - 1
        return self._first_packs[at] + (rank - self._first_ranks[at]) // self._runs[at].ranks

    def mailbox_of(self, rank: int) -> int:
        return self._runs[bisect_right(self._first_ranks, rank) - 1].mailbox

    def span(self, number: int) -> Span:
        at = bisect_right(self._first_packs, number) - 1
        ranks = self._runs[at].ranks
        return Span(self._first_ranks[at] + (number - self._first_packs[at]) * ranks, ranks)

    def __iter__(self) -> Iterator[Span]:
        return (self.span(number) for number in range(self.count))


def switch_of_pair(a: int, b: int, switches: int) -> int:
    """The switch over which two packs speak."""
    low, high = min(a, b), max(a, b)
    product = ((low << 32) + high) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    return product * switches >> 64


def switch_of_name(name: str, switches: int) -> int:
    """The switch at which a counter, queue or vector lies."""
    return crc32c(name.encode()) % switches if switches > 1 else 0
