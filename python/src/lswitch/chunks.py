"""Items of a `map` that travel together.

Each chunk is a share of what is left (guided self-scheduling: Polychronopoulos and Kuck, IEEE Transactions on Computers C-36, 1987): few
messages at first, and single calls at the end, when it matters that no worker has much before it.
"""

from __future__ import annotations

from typing import Any, Iterator, List, Optional, Tuple

from .calls import Calls
from .future import CallFuture

#: A chunk is one of so many shares for each worker.
_SHARES = 4

#: The most items of a chunk that nobody asked for.
_ITEMS_MAX = 4096


class Chunk(CallFuture):
    """The future of a chunk. It keeps its items, in case they must be tried one by one."""

    def __init__(self, calls: Calls, length: int, items: List[Any], several: bool) -> None:
        super().__init__(calls, length)
        self.items = items
        self.several = several


def sizes(count: int, workers: int, chunksize: Optional[int] = None) -> Iterator[Tuple[int, int]]:
    """Where each chunk of so many items begins, and how many it has."""
    begin = 0
    while begin < count:
        size = chunksize or max(1, min(_ITEMS_MAX, (count - begin) // (_SHARES * workers)))
        size = min(size, count - begin)
        yield begin, size
        begin += size
