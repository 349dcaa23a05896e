"""`Executor` by the names of `multiprocessing.Pool`."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Iterator, List, Optional, Sequence

from .executor import Executor


class Pool(Executor):
    """An `Executor` with `close`, `join` and `terminate`, and whose `map` and `starmap` give lists."""

    def map(  # type: ignore[override]
        self, fn: Callable[..., Any], *iterables: Iterable[Any], chunksize: Optional[int] = None, timeout: Optional[float] = None
    ) -> List[Any]:
        return list(super().map(fn, *iterables, chunksize=chunksize, timeout=timeout))

    def starmap(  # type: ignore[override]
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Sequence[Any]],
        chunksize: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> List[Any]:
        return list(super().starmap(fn, iterable, timeout, chunksize))

    def imap(self, fn: Callable[..., Any], iterable: Iterable[Any], chunksize: Optional[int] = None) -> Iterator[Any]:
        """The results in order, as they come."""
        return super().map(fn, iterable, chunksize=chunksize)

    def close(self) -> None:
        """Takes no more calls."""
        self.shutdown(wait=False)

    def join(self) -> None:
        """Waits until all calls are done, after `close` or `terminate`."""
        self._wait()

    def __exit__(self, *_: Any) -> None:
        self.close()
        self.join()
