"""The future of a call: a `concurrent.futures.Future` that costs little until somebody waits for it.

A future has a condition, a list of those who wait and one of callbacks. Most futures of many are asked when they are done already, so these
are made when they are first used. `_making` guards that, and whoever settles futures holds it while he does so for those that
have none: so nobody begins to wait for what has just happened.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, Iterable, List, Optional, Tuple

if TYPE_CHECKING:
    from .calls import Calls

_PENDING, _RUNNING, _FINISHED = "PENDING", "RUNNING", "FINISHED"
_CANCELLED = ("CANCELLED", "CANCELLED_AND_NOTIFIED")
_LATE = {"_condition", "_waiters", "_done_callbacks"}

_making = threading.Lock()


class CallFuture(Future):  # type: ignore[type-arg]
    """See the module."""

    _state = _PENDING
    _result: Any = None
    _exception: Optional[BaseException] = None

    #: Is it a call for each of several items? Then its result is (results, the error that ended them or None).
    several = False

    def __init__(self, calls: "Calls", length: int) -> None:
        # Not the base's, which makes a condition.
        self._calls = calls
        #: Bytes of the call.
        self.length = length

    def __getattr__(self, name: str) -> Any:
        if name not in _LATE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _making:
            if "_condition" not in self.__dict__:
                self._waiters: List[Any] = []
                self._done_callbacks: List[Any] = []
                self._condition = threading.Condition()
        # Whoever waits by it does not read himself.
        self._calls.call_back()
        return self.__dict__[name]

    def result(self, timeout: Optional[float] = None) -> Any:
        if self._state == _FINISHED and self._exception is None:
            return self._result
        if self._state == _RUNNING:
            end = None if timeout is None else time.monotonic() + timeout
            self._calls.read_for(self, end)
            if self._state == _FINISHED and self._exception is None:
                return self._result
            timeout = None if end is None else max(0.0, end - time.monotonic())
        return super().result(timeout)

    def done(self) -> bool:
        return self._state == _FINISHED or self._state in _CANCELLED

    # As multiprocessing's AsyncResult has it:

    def get(self, timeout: Optional[float] = None) -> Any:
        return self.result(timeout)

    def ready(self) -> bool:
        return self.done()

    def wait(self, timeout: Optional[float] = None) -> None:
        wait([self], timeout)

    def successful(self) -> bool:
        if not self.done():
            raise ValueError("the call is not done yet")
        return not self.cancelled() and self.exception() is None

    def cancel(self) -> bool:
        """True if the call had not been handed to the driver yet; then it is not made."""
        with self._calls.lock, self._condition:
            if self._state == _RUNNING or self._state == _FINISHED:
                return False
            if self._state in _CANCELLED:
                return True
            self._state = _CANCELLED[0]
            self._condition.notify_all()
        # Callbacks may use the executor, so no lock is held.
        self._invoke_callbacks()
        self.set_running_or_notify_cancel()
        return True

    def waits(self) -> bool:
        """Is it neither handed over nor cancelled? The lock of the calls is held."""
        return self._state == _PENDING

    def handed_over(self) -> None:
        """The driver is given the call. The lock of the calls is held."""
        self._state = _RUNNING


#: A future, its result, or its error.
Outcome = Tuple[CallFuture, Any, Optional[BaseException]]


def settle(outcomes: Iterable[Outcome]) -> None:
    """Tells futures how their calls ended."""
    watched: List[Outcome] = []
    with _making:
        for outcome in outcomes:
            future, value, error = outcome
            if "_condition" in future.__dict__:
                watched.append(outcome)
            else:
                future._result = value
                future._exception = error
                future._state = _FINISHED
    for future, value, error in watched:
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
