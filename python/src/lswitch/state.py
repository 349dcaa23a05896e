"""Counters, queues and vectors that the ranks of a job share in the switch. Each call is one round trip, but for vectors that
are longer than a frame."""

from __future__ import annotations

import operator
import struct
from typing import TYPE_CHECKING, Any, List, NamedTuple, Optional, Sequence, Tuple

from . import numbers
from .codec import Fields, put_bytes, put_string
from .data import Data, as_bytes
from .errors import ProtocolError, StateError, UsageError
from .frame import HEADER, STATE, SWITCH, U32, U64
from .numbers import Element
from .routing import switch_of_name

if TYPE_CHECKING:
    from .comm import Comm

NAME_MAX = 256
ENCODED_MAX = 65536
#: Elements, with their indices, in one request or reply, in bytes.
VALUES_MAX = ENCODED_MAX - 512
ITEMS_MAX = 1024
WAIT_MAX_S = 24 * 60 * 60

_KINDS = ("malformed", "too large", "full", "overflow", "missing", "closed", "mismatch", "range")
_COUNTER, _QUEUE, _VECTOR = range(3)
_DONE, _VALUE, _COMPARE_FAILED, _ITEM, _EMPTY, _CLOSED, _LENGTH, _VERSION, _VALUES, _UNCHANGED, _ERROR = range(11)
#: A shared vector's types have numbers of their own.
_SHARED = {"f32": 0, "f64": 1, "i64": 2}


class Closed(Exception):
    """The queue is empty and closed: nothing will come. Raised by `Queue.pop`, which ends a loop over a queue."""


class SharedState:
    """Asks the switches."""

    def __init__(self, comm: "Comm") -> None:
        self._comm = comm
        self._requests = 0

    def counter(self, name: str) -> "Counter":
        return Counter(self, name)

    def queue(self, name: str) -> "Queue":
        return Queue(self, name)

    def vector(self, name: str) -> "Vector":
        return Vector(self, name)

    def ask(self, kind: int, name: str, verb: int, fields: bytes = b"") -> Tuple[int, Fields]:
        """One request; gives the reply's number and its fields.

        Raises StateError when the switch refuses, which changes nothing.
        """
        if len(name.encode()) > NAME_MAX:
            raise UsageError(f"a name of {len(name.encode())} bytes; the most is {NAME_MAX}")
        body = U32.pack(kind) + put_string(name) + U32.pack(verb) + fields
        if len(body) > ENCODED_MAX:
            raise UsageError(
                f"a request for {name!r} is {len(body)} bytes long; the most is {ENCODED_MAX}: send fewer items"
            )
        comm = self._comm
        self._requests += 1
        number = self._requests
        head = HEADER.pack(STATE, 0, 0, comm.epoch, 0, comm.rank, SWITCH, number, len(body))
        switch = switch_of_name(name, len(comm.wires))
        found = comm.ask(switch, number, head + body, lambda: f"the switch to answer a request for {name!r}")
        reply = Fields(found, "a reply of the shared state")
        what = reply.u32()
        if what == _ERROR:
            refused, reason = reply.u32(), reply.string()
            raise StateError(_KINDS[refused] if refused < len(_KINDS) else str(refused), reason)
        return what, reply

    def number(self, kind: int, name: str, verb: int, fields: bytes, due: int) -> int:
        """A request whose reply is a number."""
        what, reply = self.ask(kind, name, verb, fields)
        if what != due:
            raise _strange(what)
        return reply.i64() if due == _VALUE else reply.u64()


def _strange(what: int) -> ProtocolError:
    return ProtocolError(f"the switch gave a reply that does not fit the request: number {what}")


class Counter:
    """A whole number that many add to. One that nobody has set is 0."""

    def __init__(self, state: SharedState, name: str) -> None:
        self._state = state
        self.name = name

    def add(self, by: int = 1) -> int:
        """Adds, and gives the value after it. With several that add, each sees another."""
        return self._state.number(_COUNTER, self.name, 0, _i64(by), _VALUE)

    def get(self) -> int:
        return self._state.number(_COUNTER, self.name, 1, b"", _VALUE)

    def compare_and_set(self, expected: int, new: int) -> Tuple[bool, int]:
        """Sets it to `new` if it is `expected`. Gives whether it did, and what it is now."""
        what, reply = self._state.ask(_COUNTER, self.name, 2, _i64(expected) + _i64(new))
        if what == _DONE:
            return True, new
        if what == _COMPARE_FAILED:
            return False, reply.i64()
        raise _strange(what)

    def set(self, value: int) -> None:
        self._state.ask(_COUNTER, self.name, 3, _i64(value))

    def delete(self) -> None:
        """Forgets it."""
        self._state.ask(_COUNTER, self.name, 4)


class Queue:
    """Items of bytes, first in, first out. One that nobody has used is open and empty."""

    def __init__(self, state: SharedState, name: str) -> None:
        self._state = state
        self.name = name

    def push(self, *items: Data) -> int:
        """Appends items, all or none, at most 1,024 and 64 KiB together; gives how many are in the queue then."""
        if len(items) > ITEMS_MAX:
            raise UsageError(f"{len(items)} items at once for the queue {self.name!r}; the most is {ITEMS_MAX}")
        fields = U64.pack(len(items)) + b"".join(put_bytes(as_bytes(item)) for item in items)
        return self._state.number(_QUEUE, self.name, 0, fields, _LENGTH)

    def pop(self, wait: float = 0.0) -> Optional[bytes]:
        """Takes the oldest item, or waits for one for so many seconds, and then gives None.

        Raises Closed when it is empty and closed.
        """
        if not 0 <= wait <= WAIT_MAX_S:
            raise UsageError(f"a wait of {wait} s for the queue {self.name!r}; the most is {WAIT_MAX_S}")
        what, reply = self._state.ask(_QUEUE, self.name, 1, U32.pack(int(wait * 1000)))
        if what == _ITEM:
            return reply.bytes()
        if what == _EMPTY:
            return None
        if what == _CLOSED:
            raise Closed(f"the queue {self.name!r} is closed and empty")
        raise _strange(what)

    def length(self) -> int:
        return self._state.number(_QUEUE, self.name, 2, b"", _LENGTH)

    def close(self) -> None:
        """Takes no more items: who pops gets what is left, and then Closed."""
        self._state.ask(_QUEUE, self.name, 3)

    def delete(self) -> None:
        """Drops it with its items; who waits gets Closed."""
        self._state.ask(_QUEUE, self.name, 4)


class Pulled(NamedTuple):
    """A range of a vector, and the version that it is of."""

    version: int
    values: Any


class Vector:
    """Numbers (f32, f64 or i64) that many add to and read, range by range.

    Its version rises with each change, and is what all calls that change it give.
    """

    def __init__(self, state: SharedState, name: str) -> None:
        self._state = state
        self.name = name

    def create(self, length: int, dtype: str = "f64") -> int:
        """Creates it, all zero; nothing happens if it is there with this type and length."""
        fields = U32.pack(_shared(numbers.element_named(dtype))) + _u32(length)
        return self._state.number(_VECTOR, self.name, 0, fields, _VERSION)

    def set(self, values: Any, offset: int = 0, dtype: Optional[str] = None) -> int:
        """Sets the elements from `offset` on."""
        return self._in_ranges(1, values, offset, dtype)

    def add(self, values: Any, offset: int = 0, dtype: Optional[str] = None) -> int:
        """Adds to the elements from `offset` on. What is longer than a frame is added in several requests."""
        return self._in_ranges(2, values, offset, dtype)

    def add_sparse(self, indices: Sequence[int], values: Any, dtype: Optional[str] = None) -> int:
        """Adds to single elements; an index may come more than once."""
        vector = numbers.vector(values, dtype)
        element = vector.element
        kind = U32.pack(_shared(element))
        count = len(vector.data) // element.width
        if len(indices) != count:
            raise UsageError(f"{len(indices)} indices and {count} values for the vector {self.name!r}")
        most = VALUES_MAX // (4 + element.width)
        version = 0
        for begin in range(0, count, most):
            some = b"".join(_u32(_index(index)) for index in indices[begin : begin + most])
            data = vector.data[begin * element.width : (begin + most) * element.width]
            fields = kind + put_bytes(some) + put_bytes(data) + b"\0"
            version = self._state.number(_VECTOR, self.name, 3, fields, _VERSION)
        return version

    def pull(self, count: int, offset: int = 0, newer_than: int = 0, dtype: str = "f64") -> Optional[Pulled]:
        """Reads elements, if the version is higher than `newer_than`; else None.

        The values are a NumPy array if there is NumPy, and a list otherwise. A range that is longer than a frame is read in
        several requests, again if others have written in between.
        """
        element = numbers.element_named(dtype)
        kind = U32.pack(_shared(element))
        most = VALUES_MAX // element.width
        while True:
            version: Optional[int] = None
            pieces: List[bytes] = []
            at = 0
            while at < count or version is None:
                some = min(most, count - at)
                newer = newer_than if version is None else 0
                fields = _u32(offset + at) + _u32(some) + kind + U64.pack(newer)
                what, reply = self._state.ask(_VECTOR, self.name, 4, fields)
                if what == _UNCHANGED:
                    return None
                if what != _VALUES:
                    raise _strange(what)
                found = reply.u64()
                if version is None:
                    version = found
                elif version != found:
                    version = -1
                    break
                pieces.append(reply.bytes())
                at += some
            if version is not None and version >= 0:
                data = b"".join(pieces)
                values = numbers.as_array(element, data) if numbers.has_numpy() else numbers.unpacked(element, data)
                return Pulled(version, values)

    def length(self) -> int:
        return self._state.number(_VECTOR, self.name, 5, b"", _LENGTH)

    def delete(self) -> None:
        """Forgets it."""
        self._state.ask(_VECTOR, self.name, 6)

    def _in_ranges(self, verb: int, values: Any, offset: int, dtype: Optional[str]) -> int:
        vector = numbers.vector(values, dtype)
        element = vector.element
        kind = U32.pack(_shared(element))
        most = VALUES_MAX // element.width
        version = 0
        for begin in range(0, len(vector.data) // element.width, most):
            data = vector.data[begin * element.width : (begin + most) * element.width]
            fields = _u32(offset + begin) + kind + put_bytes(data) + b"\0"
            version = self._state.number(_VECTOR, self.name, verb, fields, _VERSION)
        return version


def _shared(element: Element) -> int:
    number = _SHARED.get(element.name)
    if number is None:
        raise UsageError(f"a shared vector is of {', '.join(_SHARED)}, not {element.name}")
    return number


def _i64(value: int) -> bytes:
    try:
        return struct.pack("<q", value)
    except struct.error:
        raise UsageError(f"{value!r} is not a whole number of 64 bits") from None


def _index(value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"the index {value!r} is no whole number") from None


def _u32(value: int) -> bytes:
    try:
        return U32.pack(value)
    except struct.error:
        raise UsageError(f"{value!r} is not a whole number from 0 to 4294967295") from None
