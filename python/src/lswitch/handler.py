"""A function of yours as a Lambda handler: it joins the job, runs, reports what it returned, and leaves.

Environments are reused: nothing of a job outlives its invocation, and its threads are joined before the handler returns.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import time
import traceback
from typing import Any, Callable, Dict

from . import arrays, tree
from .comm import Comm
from .errors import LswitchError, MessageError
from .event import Event, parse
from .job import Job

#: Kept between the last wait of a rank and the end of the invocation, in seconds, so that there is time to say what was
#: waited for.
_MARGIN_S = 2.0

#: The time of an invocation whose context does not tell, in seconds: Lambda's most.
_DEADLINE_DEFAULT_S = 900.0

Handler = Callable[[Any, Any], Dict[str, Any]]


def handler(function: Callable[[Any, Job], Any]) -> Handler:
    """Makes a Lambda handler of `def f(event, job)`.

    `event` is the user's own: the program's arguments, or the event's `event`. What `f` returns becomes the rank's result at the
    driver: bytes as they are, anything else as JSON. What it raises fails the invocation and, with it, the job.
    """

    @functools.wraps(function)
    def handle(event: Any, context: Any = None) -> Dict[str, Any]:
        parsed = parse(event)
        begun, _ = in_job(parsed, context, lambda job: function(parsed.for_program(), job), encode_result)
        return {"ranks": 1, "seconds": round(time.monotonic() - begun, 6)}

    return handle


def in_job(
    event: Event, context: Any, run: Callable[[Job], Any], encode: Callable[[Any], bytes]
) -> Any:
    """Joins, runs, reports and leaves; gives when the job had started, and what `run` returned."""
    invoked = time.monotonic()
    with_margin = deadline_of(context)
    comm = Comm.join(event, with_margin)
    begun = time.monotonic()
    try:
        try:
            returned = run(Job(comm, event.allow_pickle, event.store))
            encoded = encode(returned)
            tell_usage(comm, invoked)
            comm.result(encoded)
        except BaseException as error:
            comm.leave(words_of(event.rank, error))
            raise
        comm.leave()
        return begun, returned
    finally:
        comm.close()


def tell_usage(comm: Comm, invoked: float) -> None:
    """Tells the driver what this invocation has taken since then. Where that cannot be told, nothing has failed."""
    memory = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    arm = platform.machine() in ("aarch64", "arm64")
    with contextlib.suppress(LswitchError):
        comm.usage(int(memory) if memory.isdigit() else 0, arm, time.monotonic() - invoked)


def encode_result(value: Any) -> bytes:
    """What a rank returned, as the driver gets it."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    _check_keys(value, 0)
    try:
        return json.dumps(value, default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise MessageError(
            f"the function returned a {type(value).__name__} that JSON cannot hold: {error}; return bytes, or what JSON can hold"
        ) from error


def words_of(rank: int, error: BaseException) -> str:
    """An error as the driver tells it: the rank, what, and where in the user's code."""
    words = f"rank {rank}: {type(error).__qualname__}: {error}" if str(error) else f"rank {rank}: {type(error).__qualname__}"
    if isinstance(error, LswitchError):
        return words
    frames = traceback.extract_tb(error.__traceback__)
    if frames:
        words += f" ({frames[-1].filename}:{frames[-1].lineno})"
    return words


def _check_keys(value: Any, depth: int) -> None:
    """JSON's keys are text: 1 and "1" would be one key."""
    if depth > tree.DEPTH_MAX:
        # `json` finds what holds itself.
        return
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise MessageError(
                    f"the function returned a dict with the key {key!r:.60}, which is no text, and that is all that JSON has; return a list of pairs, "
                    "or bytes"
                )
            _check_keys(part, depth + 1)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _check_keys(part, depth + 1)


def _plain(value: Any) -> Any:
    """NumPy's arrays and numbers as lists and numbers."""
    if arrays.is_array(value):
        misfit = arrays.misfit(value)
        if misfit is not None:
            raise TypeError(misfit)
        if value.dtype.kind in "biufU":
            return value.tolist()
        # Times would be numbers without a unit.
        raise TypeError(f"{'an array' if arrays.is_plain(value) else 'a number'} of {value.dtype}")
    raise TypeError(arrays.a(type(value)))


def deadline_of(context: Any) -> float:
    left = _DEADLINE_DEFAULT_S
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    if callable(remaining):
        left = remaining() / 1000
    return time.monotonic() + left - min(_MARGIN_S, left / 2)
