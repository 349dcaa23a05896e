"""A `concurrent.futures.Executor` whose calls run on serverless functions, or on processes of this machine in their place.

    with lswitch.Executor(4) as executor:
        print(sum(executor.map(function, range(10_000))))

It starts `lswitch invoke pool`, which starts the workers (`lswitch.worker`) with the first call, hands out calls, tries again what lost its
worker, and lets idle workers go.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from concurrent import futures
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from . import call as envelope
from .call import EACH, EACH_STAR, FOLD, JSON, NOTHING, ONE, PAYLOAD_MAX, PICKLE, REDUCE, SERIALIZERS
from .calls import Calls
from .chunks import Chunk, sizes
from .driver import Driver, find_binary
from .errors import MessageError, TooLongError, UsageError, WorkerLostError
from .function import NoNameError, imported_by_a_worker, name_of
from .future import CallFuture

#: Functions whose names are kept.
_KEPT = 1024

#: Bytes of a chunk above which it is cut, if nobody said how long chunks are to be.
_CHUNK_BYTES = 1 << 20

_Head = Tuple[bytes, bytes]
_MISSING = object()


class Executor(futures.Executor):
    """Runs calls on workers.

    - `workers`: how many at once; as many as this machine has processors if not given.
    - `function`: the name of a function on AWS that runs `lswitch.worker.handler`. Without it workers are processes of this machine,
      which find the modules that this process finds. `local_function` is the file of another function for them.
    - `serializer`: "pickle" sends arguments and results that are neither bytes, nor arrays, nor what JSON can hold; "cloudpickle" sends
      functions by value too. Both let workers run code that they are sent.
    - `binary`: where `lswitch` is; else $LSWITCH, or the one in PATH.
    - `retries`: how often a call is tried again that has lost its worker. A call that raises is not tried again.
    - `idle_timeout`: workers are let go when there was nothing to do for so many seconds, and come back with the next call.
    - `env`: variables of workers on this machine.
    - `lswitch_args`: further arguments of `lswitch invoke pool`, such as ["--switch", "10.0.0.5:7000#SHA256", "--store", "s3://bucket/prefix"].

    Raises MissingBinaryError if there is no `lswitch`.
    """

    def __init__(
        self,
        workers: Optional[int] = None,
        *,
        function: Optional[str] = None,
        local_function: Optional[str] = None,
        serializer: Optional[str] = None,
        binary: Optional[str] = None,
        retries: int = 2,
        idle_timeout: float = 60,
        env: Optional[Mapping[str, str]] = None,
        lswitch_args: Sequence[str] = (),
    ) -> None:
        importing = imported_by_a_worker()
        if importing is not None:
            raise UsageError(
                f"{importing} makes an Executor whenever it is imported, and a worker imports it for its functions: put what the script does "
                "under if __name__ == \"__main__\":"
            )
        workers = (os.cpu_count() or 1) if workers is None else workers
        if workers < 1:
            raise UsageError(f"{workers} workers; there must be at least one")
        if serializer not in SERIALIZERS:
            raise UsageError(f"{serializer!r} is no serializer of calls; there are \"pickle\" and \"cloudpickle\"")
        if function is not None and local_function is not None:
            raise UsageError("workers run on AWS (function) or on this machine (local_function), and not on both")
        if env and (function is not None or local_function is not None):
            raise UsageError("env is for workers that the executor sets up itself; a function's own variables stand in its settings")
        self._workers = workers
        self._serializer = serializer
        driver = Driver(
            find_binary(binary),
            workers,
            function,
            local_function,
            serializer is not None,
            retries,
            idle_timeout,
            env or {},
            list(lswitch_args),
        )
        self._calls = Calls(driver, workers, serializer is not None)
        #: What goes ahead of calls without arguments and with some, by function.
        self._heads: Dict[Any, _Head] = {}
        self._closing = weakref.finalize(self, self._calls.shut)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "futures.Future[Any]":
        """Calls `fn(*args, **kwargs)` on a worker.

        Raises MessageError at once if the function or the arguments cannot be sent, and TooLongError if they are over 256 MiB.
        """
        try:
            plain, given = self._heads[fn]
        except (KeyError, TypeError):
            plain, given = self._head(fn)
        if args or kwargs:
            form, data = envelope.arguments(args, kwargs, self._serializer)
            if form == JSON:
                payload = given + data
            else:
                payload = bytes((ONE, given[1] & 0xF0 | form)) + given[2:] + data
            if len(payload) > PAYLOAD_MAX:
                raise _too_long(len(payload))
        else:
            payload = plain
        future = CallFuture(self._calls, len(payload))
        self._calls.submit(future, payload)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: Optional[int] = None,
        **more: Any,
    ) -> Iterator[Any]:
        """The results of `fn` for the items of the iterables, in their order.

        Calls travel in chunks, of `chunksize` items or, without it, of a share of what is left: long ones at first, single calls at the end,
        so that all workers end at the same time. If a call raises, the results before it are given, and then the error.
        """
        if more:
            raise TypeError(f"map has no argument {', '.join(more)}")
        if len(iterables) == 1:
            return self._map(EACH, fn, list(iterables[0]), timeout, chunksize)
        return self._map(EACH_STAR, fn, [list(item) for item in zip(*iterables)], timeout, chunksize)

    def starmap(
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Sequence[Any]],
        timeout: Optional[float] = None,
        chunksize: Optional[int] = None,
    ) -> Iterator[Any]:
        """As `map`, with items that are the arguments of a call each."""
        return self._map(EACH_STAR, fn, [list(item) for item in iterable], timeout, chunksize)

    def map_reduce(
        self,
        map_fn: Callable[[Any], Any],
        items: Iterable[Any],
        reduce_fn: Callable[[Any, Any], Any],
        initial: Any = _MISSING,
        *,
        timeout: Optional[float] = None,
        chunksize: Optional[int] = None,
    ) -> Any:
        """What `functools.reduce(reduce_fn, map(map_fn, items))` gives, if `reduce_fn` is associative.

        Workers fold the results of each chunk where they are made, so that one result a chunk travels; further calls fold those, in
        order, up to 64 at a time, until one is left. `initial` goes ahead of all, once.
        """
        end = None if timeout is None else time.monotonic() + timeout
        given = list(items)
        found: List[Any] = []
        if given:
            found = self._folded([self._function(map_fn), self._function(reduce_fn)], FOLD, given, chunksize, end)
        if initial is not _MISSING:
            found.insert(0, initial)
        if not found:
            raise TypeError("map_reduce of no items with no initial value")
        while len(found) > 1:
            found = self._folded([self._function(reduce_fn)], REDUCE, found, 64, end)
        return found[0]

    def apply(self, fn: Callable[..., Any], args: Sequence[Any] = (), kwds: Optional[Mapping[str, Any]] = None) -> Any:
        """Calls and waits, as `multiprocessing.Pool` does."""
        return self.apply_async(fn, args, kwds).result()

    def apply_async(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any] = (),
        kwds: Optional[Mapping[str, Any]] = None,
        callback: Optional[Callable[[Any], Any]] = None,
        error_callback: Optional[Callable[[BaseException], Any]] = None,
    ) -> "futures.Future[Any]":
        """`submit`, with callbacks for the result and the error. What it gives is a future, with `get`, `ready`, `wait` and `successful` too."""
        future = self.submit(fn, *args, **(kwds or {}))
        if callback is not None or error_callback is not None:

            def tell(done: "futures.Future[Any]") -> None:
                error = None if done.cancelled() else done.exception()
                if error is not None:
                    if error_callback is not None:
                        error_callback(error)
                elif callback is not None and not done.cancelled():
                    callback(done.result())

            future.add_done_callback(tell)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls. What was submitted is still done, but for what waits here and is cancelled, if that is wanted."""
        self._calls.shut(cancel_futures)
        if wait:
            self._wait()

    def terminate(self) -> None:
        """Ends the workers at once; calls that are not done fail with BrokenExecutor."""
        self._calls.kill()

    @property
    def workers(self) -> int:
        """How many workers there are just now."""
        return self._calls.workers

    def _wait(self) -> None:
        if threading.current_thread() is not self._calls.reader:
            self._calls.reader.join()

    def _function(self, function: Callable[..., Any]) -> Union[str, bytes]:
        """Its name, or its pickle."""
        serializer = self._serializer
        try:
            if serializer != "cloudpickle" or getattr(function, "__module__", None) != "__main__":
                return name_of(function)
        except NoNameError:
            if serializer is None or serializer == "pickle" and getattr(function, "__module__", None) == "__main__":
                raise
        if not callable(function):
            raise TypeError(f"{function!r} cannot be called")
        return envelope.dumps(function, serializer or "")

    def _head(self, function: Callable[..., Any]) -> _Head:
        named = self._function(function)
        heads = (
            envelope.head(ONE, NOTHING, [named], self._serializer),
            envelope.head(ONE, JSON, [named], self._serializer),
        )
        if isinstance(named, str):
            # What goes by value may change.
            if len(self._heads) >= _KEPT:
                self._heads.clear()
            try:
                self._heads[function] = heads
            except TypeError:
                pass
        return heads

    def _map(
        self, how: int, fn: Callable[..., Any], items: List[Any], timeout: Optional[float], chunksize: Optional[int]
    ) -> Iterator[Any]:
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        end = None if timeout is None else time.monotonic() + timeout
        function = self._function(fn)
        return self._results(how, function, self._chunks(how, [function], items, chunksize), end)

    def _chunks(
        self, how: int, functions: List[Union[str, bytes]], items: List[Any], chunksize: Optional[int]
    ) -> List[Chunk]:
        """Submits items in chunks."""
        form = PICKLE if self._serializer is not None else JSON
        head = envelope.head(how, form, functions, self._serializer)
        chunks: List[Chunk] = []
        try:
            for begin, count in sizes(len(items), self._workers, chunksize):
                self._add_chunks(chunks, how, head, items[begin : begin + count], chunksize is None)
        except BaseException:
            for chunk in chunks:
                chunk.cancel()
            raise
        return chunks

    def _add_chunks(self, chunks: List[Chunk], how: int, head: bytes, items: List[Any], may_cut: bool) -> None:
        form, data = envelope.items(how, items, self._serializer)
        length = len(head) + len(data)
        if len(items) > 1 and (may_cut and length > _CHUNK_BYTES or length > PAYLOAD_MAX):
            middle = len(items) // 2
            self._add_chunks(chunks, how, head, items[:middle], may_cut)
            self._add_chunks(chunks, how, head, items[middle:], may_cut)
            return
        if length > PAYLOAD_MAX:
            raise _too_long(length)
        payload = head[:1] + bytes((head[1] & 0xF0 | form,)) + head[2:] + data
        chunk = Chunk(self._calls, length, items, how in (EACH, EACH_STAR))
        self._calls.submit(chunk, payload)
        chunks.append(chunk)

    def _results(self, how: int, function: Union[str, bytes], chunks: List[Chunk], end: Optional[float]) -> Iterator[Any]:
        """What `map` gives: in order, as it comes."""
        # What is not read any more can be let go.
        chunks.reverse()

        def results() -> Iterator[Any]:
            try:
                while chunks:
                    chunk = chunks.pop()
                    try:
                        values, error = chunk.result(None if end is None else max(0.0, end - time.monotonic()))
                    except WorkerLostError:
                        if len(chunk.items) == 1:
                            raise
                        # One of its calls may be the cause, and the others need not suffer for it.
                        values, error = [], TooLongError("")
                    if isinstance(error, TooLongError) and len(chunk.items) > 1:
                        chunks.extend(reversed(self._chunks(how, [function], chunk.items, 1)))
                        continue
                    yield from values
                    if error is not None:
                        raise error
            finally:
                for chunk in chunks:
                    chunk.cancel()

        return results()

    def _folded(
        self, functions: List[Union[str, bytes]], how: int, items: List[Any], chunksize: Optional[int], end: Optional[float]
    ) -> List[Any]:
        chunks = self._chunks(how, functions, items, chunksize)
        try:
            return [chunk.result(None if end is None else max(0.0, end - time.monotonic())) for chunk in chunks]
        finally:
            for chunk in chunks:
                chunk.cancel()


def _too_long(length: int) -> MessageError:
    return TooLongError(
        f"the call has {length} bytes, over the limit of {PAYLOAD_MAX}; give less, or write long arguments to a file or a store that workers can "
        "read, and give its name"
    )
