"""What a program sees of its job: typed messages, collectives, the shared state."""

from __future__ import annotations

import sys
from typing import Any, Callable, List, Optional, Sequence, Union

from . import message as envelope
from .collectives import Collectives
from .comm import Comm
from .errors import UsageError
from .mailbox import Message
from .state import Counter, Queue, SharedState, Vector

#: "sum", "min", "max", or an associative function of two messages.
Op = Union[str, Callable[[Any, Any], Any]]


class Job:
    """One rank of a job. It belongs to one thread.

    `send`, `receive` and the collectives take messages: bytes, what JSON can hold, NumPy's arrays
    (`lswitch.message` has their envelope). Where ranks of other languages take part, which know of no envelope, `comm` and
    `collectives` are the same calls over raw bytes.
    """

    def __init__(self, comm: Comm, allow_pickle: bool = False, store: str = "") -> None:
        #: Messages as raw bytes.
        self.comm = comm
        #: Collectives over raw bytes.
        self.collectives = Collectives(comm)
        self.allow_pickle = allow_pickle
        #: The job's store: `s3://bucket/prefix` or `file:///path`.
        self.store = store
        self.rank = comm.rank
        self.size = comm.size
        self._state = SharedState(comm)

    @property
    def uid(self) -> int:
        """The same as `rank`."""
        return self.rank

    @property
    def peers(self) -> range:
        """All ranks, this one included."""
        return range(self.size)

    def send(self, peer: int, message: Any, tag: int = 0, serializer: Optional[str] = None) -> None:
        """Sends a message to a rank; see `Comm.send` for when it waits.

        `serializer` may be "json", "pickle" or "cloudpickle"; the last two only where the event allows pickle.
        """
        self.comm.send(peer, self._encode(message, serializer), tag)

    def receive(self, source: Optional[int] = None, tag: int = 0, timeout: Optional[float] = None) -> Message:
        """The next message with this tag, from one rank or from any: (source, tag, data).

        Raises ReceiveTimeout after `timeout` seconds; DeadlineError shortly before the invocation's own end.
        """
        return self._opened(self.comm.receive(source, tag, timeout))

    def flush(self) -> None:
        """Sends at once what was gathered, without waiting for anything: before a long computation, say."""
        self.comm.flush()

    def barrier(self) -> None:
        """Returns when all ranks have called it."""
        self.collectives.barrier()

    def broadcast(self, message: Any = None, root: int = 0, serializer: Optional[str] = None) -> Any:
        """Every rank gets the root's message."""
        data = self._encode(message, serializer) if self.rank == root else None
        return self._decode(self.collectives.broadcast(data, root))

    def reduce(self, values: Any, op: Op = "sum", root: int = 0, dtype: Optional[str] = None) -> Any:
        """As `allreduce`, for the root alone; the others get None."""
        if isinstance(op, str):
            return self.collectives.reduce(values, op, root, dtype)
        found = self.collectives.reduce_with(self._encode(values), self._combiner(op), root)
        return None if found is None else self._decode(found)

    def allreduce(self, values: Any, op: Op = "sum", dtype: Optional[str] = None) -> Any:
        """All ranks' values combined, for every rank.

        With "sum", "min" or "max" the values are a number, a list of numbers or a NumPy array, and the switch combines
        them element by element. A function combines any two messages, in the order of ranks; it must be associative.
        """
        if isinstance(op, str):
            return self.collectives.allreduce(values, op, dtype)
        return self._decode(self.collectives.allreduce_with(self._encode(values), self._combiner(op)))

    def gather(self, message: Any, root: int = 0, serializer: Optional[str] = None) -> Optional[List[Any]]:
        """The root gets every rank's message, by rank; the others get None."""
        found = self.collectives.gather(self._encode(message, serializer), root)
        return None if found is None else [self._decode(data) for data in found]

    def allgather(self, message: Any, serializer: Optional[str] = None) -> List[Any]:
        """Every rank gets every rank's message, by rank."""
        found = self.collectives.allgather(self._encode(message, serializer))
        return [self._decode(data) for data in found]

    def scatter(self, messages: Optional[Sequence[Any]] = None, root: int = 0, serializer: Optional[str] = None) -> Any:
        """Each rank gets the message that the root has for it."""
        pieces = None
        if self.rank == root:
            pieces = [self._encode(message, serializer) for message in messages or ()]
        return self._decode(self.collectives.scatter(pieces, root))

    def alltoall(self, messages: Sequence[Any], serializer: Optional[str] = None) -> List[Any]:
        """Each rank gives one message for each rank, and gets one from each, by rank."""
        pieces = [self._encode(message, serializer) for message in messages]
        return [self._decode(data) for data in self.collectives.alltoall(pieces)]

    def counter(self, name: str) -> Counter:
        """A counter that all ranks share."""
        return self._state.counter(name)

    def queue(self, name: str) -> Queue:
        """A queue of bytes that all ranks share."""
        return self._state.queue(name)

    def vector(self, name: str) -> Vector:
        """A vector of numbers that all ranks share."""
        return self._state.vector(name)

    def remaining(self) -> float:
        """Seconds until every wait ends, shortly before the invocation does."""
        return self.comm.remaining()

    def log(self, *words: object) -> None:
        """Writes a line to the function's log. If the rank fails, the driver shows the last lines."""
        print(f"rank {self.rank}:", *words, file=sys.stderr, flush=True)

    def progress(self, step: int, measure: float = 0.0) -> None:
        """Tells the driver how far this rank is."""
        self.comm.progress(step, measure)

    def _encode(self, message: Any, serializer: Optional[str] = None) -> bytes:
        return envelope.encode(message, serializer, self.allow_pickle)

    def _decode(self, data: bytes) -> Any:
        return envelope.decode(data, self.allow_pickle)

    def _opened(self, message: Message) -> Message:
        return Message(message.source, message.tag, self._decode(message.data))

    def _combiner(self, op: Op) -> Callable[[bytes, bytes], bytes]:
        if not callable(op):
            raise UsageError(f"{op!r} is no way to combine: \"sum\", \"min\", \"max\" or a function of two messages")
        function = op
        return lambda one, other: self._encode(function(self._decode(one), self._decode(other)))
