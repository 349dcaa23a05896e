"""Collectives over raw bytes and vectors: what all ranks of a job do together, in the same order.

Barrier, broadcast, reduce and all-reduce are computed in the switch, segment by segment. The others, exchanges, are messages between
the packs' first ranks, in a group of their own; each pack announces them to the switch, which ends the job if ranks make different calls. All of it as docs/PROTOCOL.md says, so that Python's ranks and Rust's take
part in the same calls.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, Optional, Sequence, Tuple

from . import numbers
from .data import Data, as_bytes
from .errors import ConnectionLostError, UsageError
from .flow import Wanted
from .frame import ANSWER_INTERVAL, CONTRIBUTE, EXCHANGES, HEADER, NO_ROOT, PART_LEN, SWITCH, U32, U64, WINDOW

if TYPE_CHECKING:
    from .comm import Comm

FOLDS = {"sum": 1, "min": 2, "max": 3}
_BARRIER = 0x0304
_BROADCAST = 0x0400
_EXCHANGE = 0x0500

_GATHER, _ALLGATHER, _SCATTER, _ALLTOALL, _REDUCE_WITH, _ALLREDUCE_WITH = range(1, 7)
_NAMES = ("", "gather", "all-gather", "scatter", "all-to-all", "reduce by a function", "all-reduce by a function")


class Collectives:
    """The collective calls of a rank."""

    def __init__(self, comm: "Comm") -> None:
        self._comm = comm
        self._packs = comm.peers.packs
        self._number = comm.peers.number
        #: Segments that were contributed to, over all switches, and exchanges.
        self._segments = 0
        self._exchanges = 0
        #: Of each switch: exchanges that were announced there, and the last of them that the switch answers.
        self._announced = [0] * len(comm.wires)
        self._answered: List[Optional[Tuple[int, int]]] = [None] * len(comm.wires)

    def barrier(self) -> None:
        """Returns when all ranks have called it."""
        self._in_switch(_BARRIER, None, b"")

    def broadcast(self, data: Optional[Data], root: int = 0) -> bytes:
        """Every rank gets the root's bytes; what the others give is not looked at."""
        self._pack_of(root)
        return self._broadcast(root, as_bytes(data) if self._comm.rank == root else None)

    def reduce(self, values: Any, op: str = "sum", root: int = 0, dtype: Optional[str] = None) -> Any:
        """The element-wise combination of all ranks' vectors for the root; None for the others. Else as `allreduce`."""
        return self._fold(values, op, root, dtype)

    def allreduce(self, values: Any, op: str = "sum", dtype: Optional[str] = None) -> Any:
        """The element-wise combination ("sum", "min", "max") of all ranks' vectors, for every rank.

        `values` is a number, a list of numbers or a NumPy array, of f64, f32, i64 or u64, of the same type and length on
        all ranks; the result has its form. Sums of floats are made in the order of ranks. A sum of integers that does not fit
        ends the job.
        """
        return self._fold(values, op, None, dtype)

    def gather(self, data: Data, root: int = 0) -> Optional[List[bytes]]:
        """The root gets every rank's bytes, by rank; the others get None."""
        to = self._pack_of(root)
        if self._comm.rank == root:
            return self._gathered(_GATHER, root, [as_bytes(data)])
        if to == self._number:
            raise AssertionError("a Python rank is a pack of its own")
        self._exchange(_GATHER, root, {to: pack([as_bytes(data)])}, 0)
        return None

    def allgather(self, data: Data) -> List[bytes]:
        """Every rank gets every rank's bytes, by rank."""
        if self._number == 0:
            packed = self._broadcast(0, pack(self._gathered(_ALLGATHER, None, [as_bytes(data)])))
        else:
            self._exchange(_ALLGATHER, None, {0: pack([as_bytes(data)])}, 0)
            packed = self._broadcast(0, None)
        return unpack(packed, self._comm.size)

    def scatter(self, pieces: Optional[Sequence[Data]], root: int = 0) -> bytes:
        """Each rank gets the piece that the root has for it; what the others give is not looked at."""
        rank = self._comm.rank
        self._pack_of(root)
        if rank != root:
            ((_, packed),) = self._exchange(_SCATTER, root, {}, 1)
            return unpack(packed, 1)[0]
        given = self._one_for_each(pieces)
        sends = {}
        for number, span in self._others():
            sends[number] = pack(given[span.first_rank : span.first_rank + span.ranks])
        self._exchange(_SCATTER, root, sends, 0)
        return given[rank]

    def alltoall(self, pieces: Sequence[Data]) -> List[bytes]:
        """Each rank gives one piece for each rank, and gets one from each, by rank."""
        given = self._one_for_each(pieces)
        sends = {}
        for number, span in self._others():
            sends[number] = pack(given[span.first_rank : span.first_rank + span.ranks])
        results = list(given)
        for number, packed in self._exchange(_ALLTOALL, None, sends, len(sends)):
            span = self._packs.span(number)
            results[span.first_rank : span.first_rank + span.ranks] = unpack(packed, span.ranks)
        return results

    def reduce_with(
        self, data: Data, combine: Callable[[bytes, bytes], Data], root: int = 0
    ) -> Optional[bytes]:
        """The root gets the combination of all ranks' bytes by an associative function, in the order of ranks."""
        return self._combined(_REDUCE_WITH, root, as_bytes(data), combine)

    def allreduce_with(self, data: Data, combine: Callable[[bytes, bytes], Data]) -> bytes:
        """As `reduce_with`, for every rank."""
        self._check()
        return self._broadcast(0, self._combined(_ALLREDUCE_WITH, None, as_bytes(data), combine))

    def _fold(self, values: Any, op: str, root: Optional[int], dtype: Optional[str]) -> Any:
        fold = FOLDS.get(op)
        if fold is None:
            raise UsageError(f"{op!r} is no fold; there are {', '.join(FOLDS)}, and reduce_with for functions")
        vector = numbers.vector(values, dtype)
        if root is not None:
            self._pack_of(root)
        result = self._in_switch(fold << 8 | vector.element.code, root, vector.data, vector.shape)
        if root is None or root == self._comm.rank:
            return vector.restore(result)
        return None

    def _combined(
        self, call: int, root: Optional[int], data: bytes, combine: Callable[[bytes, bytes], Data]
    ) -> Optional[bytes]:
        to = self._pack_of(root or 0)
        if to != self._number:
            self._exchange(call, root, {to: data}, 0)
            return None
        parts = self._exchange(call, root, {}, self._packs.count - 1)
        parts.append((self._number, data))
        parts.sort(key=lambda part: part[0])
        result = parts[0][1]
        for _, part in parts[1:]:
            result = as_bytes(combine(result, part))
        return result

    def _gathered(self, call: int, root: Optional[int], mine: List[bytes]) -> List[bytes]:
        parts = {self._number: mine}
        for number, packed in self._exchange(call, root, {}, self._packs.count - 1):
            parts[number] = unpack(packed, self._packs.span(number).ranks)
        return [piece for _, pieces in sorted(parts.items()) for piece in pieces]

    def _broadcast(self, root: int, given: Optional[bytes]) -> bytes:
        """Through the switch; `given` by the pack of the root, a rank, alone."""
        answer = self._in_switch(_BROADCAST, root, given)
        return answer if given is None else given

    def _in_switch(self, operation: int, root: Optional[int], given: Optional[bytes], shape: int = 0) -> bytes:
        """One call in the switch, a window of segments ahead of the answers. None is given by those who only get."""
        self._check()
        comm, segment = self._comm, self._comm.segment
        if self._packs.count == 1 and given is not None:
            # The only pack has what all have given.
            comm.check()
            return given
        total = 0 if given is None else len(given)
        count = max(1, -(-total // segment))
        due: Deque[Tuple[int, int]] = deque()
        pieces: List[bytes] = []
        sent = 0
        def what() -> str:
            return f"all ranks to make the same collective call (operation {operation:#06x})"

        while len(pieces) < count:
            while sent < count and len(due) < WINDOW:
                data = b"" if given is None else given[sent * segment : (sent + 1) * segment]
                call = self._next_call()
                frame = self._contribution(call, operation, root, total, data, shape)
                comm.contribute(call, operation, frame, what)
                due.append(call)
                sent += 1
            call = due.popleft()
            whole, piece = comm.wait(lambda: comm.answers.pop(call, None), what)
            if given is None and not pieces:
                count = max(1, -(-whole // segment))
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _contribution(
        self, call: Tuple[int, int], operation: int, root: Optional[int], total: int, data: bytes, shape: int = 0
    ) -> bytes:
        comm = self._comm
        length = PART_LEN + len(data)
        head = HEADER.pack(CONTRIBUTE, 0, shape, comm.epoch, operation, comm.rank, SWITCH, call[1], length)
        return head + U64.pack(total) + U32.pack(NO_ROOT if root is None else root) + data

    def _announce(self, exchange: int, root: Optional[int], what: Callable[[], str]) -> None:
        """Tells a switch which exchange this rank makes, which compares it with what the others do. Nothing is waited for, unless this rank is
        far ahead of others."""
        comm = self._comm
        if self._packs.count == 1:
            comm.check()
            return
        call = self._next_call()
        switch = call[0]
        self._announced[switch] += 1
        is_answered = self._announced[switch] % ANSWER_INTERVAL == 0
        if is_answered:
            earlier, self._answered[switch] = self._answered[switch], call
            if earlier is not None:
                comm.wait(lambda: comm.answers.pop(earlier, None), what)
        operation = _EXCHANGE | exchange
        comm.contribute(call, operation if is_answered else None, self._contribution(call, operation, root, 0, b""), what)

    def _next_call(self) -> Tuple[int, int]:
        number, self._segments = self._segments, self._segments + 1
        switches = len(self._comm.wires)
        return number % switches, number // switches

    def _exchange(
        self, exchange: int, root: Optional[int], sends: Dict[int, bytes], count: int
    ) -> List[Tuple[int, bytes]]:
        """Sends messages to packs, by number, and gives `count` from others, in whatever order they come."""
        self._check()

        def what() -> str:
            ends = "" if root is None else f" {'from' if exchange == _SCATTER else 'to'} rank {root}"
            return f"the other packs to make the same collective call ({_NAMES[exchange]}{ends})"

        self._announce(exchange, root, what)
        comm = self._comm
        # The call and the root are in it, so that no message of another call is taken for one of this before the switch has compared the two.
        tag = ((root or 0) & 0xFFF) << 20 | exchange << 16 | self._exchanges & 0xFFFF
        self._exchanges += 1
        channel = (EXCHANGES, tag)
        announced: Dict[int, Tuple[int, bytes]] = {}
        for number, data in sends.items():
            rank = self._packs.span(number).first_rank
            sequence = comm.begin_to_send_in_group(rank, EXCHANGES, tag, data)
            if sequence is not None:
                announced[rank] = (sequence, data)
        received: List[Tuple[int, bytes]] = []

        def look() -> Any:
            for rank, (sequence, _) in announced.items():
                if comm.peers.of(rank).take_grant(sequence):
                    return rank
            return comm.take(None, channel) if len(received) < count else None

        while announced or len(received) < count:
            wanted = Wanted(None, channel) if len(received) < count else None
            found = comm.wait(lambda: _some(look()), what, wanted=wanted)[0]
            if isinstance(found, int):
                sequence, data = announced.pop(found)
                comm.send_granted(found, EXCHANGES, tag, sequence, data)
            else:
                received.append((self._packs.number_of(found.source), found.data))
        return received

    def _others(self) -> Any:
        self._check()
        return ((number, span) for number, span in enumerate(self._packs) if number != self._number)

    def _pack_of(self, root: int) -> int:
        if not 0 <= root < self._comm.size:
            raise UsageError(
                f"rank {self._comm.rank} named rank {root} as the root in a job of {self._comm.size} ranks"
            )
        self._check()
        return self._packs.number_of(root)

    def _check(self) -> None:
        if self._packs.elastic:
            raise UsageError(
                f"rank {self._comm.rank} made a collective call in an elastic job, whose workers come and go and know the driver "
                "alone; use the shared state (job.queue, job.counter, job.vector)"
            )

    def _one_for_each(self, pieces: Optional[Sequence[Data]]) -> List[bytes]:
        given = [] if pieces is None else [as_bytes(piece) for piece in pieces]
        if len(given) != self._comm.size:
            raise UsageError(
                f"rank {self._comm.rank} gave {len(given)} pieces in a job of {self._comm.size} ranks; it takes one for each"
            )
        return given


def _some(found: Any) -> Optional[Tuple[Any]]:
    """So that rank 0 is not taken for nothing."""
    return None if found is None else (found,)


def pack(pieces: Sequence[bytes]) -> bytes:
    """Several pieces in one: each with its length ahead."""
    return b"".join(part for piece in pieces for part in (U64.pack(len(piece)), piece))


def unpack(packed: bytes, count: int) -> List[bytes]:
    """The pieces that were packed, `count` of them."""
    pieces: List[bytes] = []
    at = 0
    while at + 8 <= len(packed):
        (length,) = U64.unpack_from(packed, at)
        if length > len(packed) - at - 8:
            break
        pieces.append(packed[at + 8 : at + 8 + length])
        at += 8 + length
    if len(pieces) != count or at != len(packed):
        raise ConnectionLostError(
            f"a pack sent {len(pieces)} pieces to a collective call in which {count} were due; "
            "all ranks must run the same program"
        )
    return pieces
