"""Messages between serverless functions, through the TCP switch lswitch: its client in pure Python.

    import lswitch

    @lswitch.handler
    def handler(event, job):
        job.send((job.rank + 1) % job.size, {"from": job.rank})
        return job.receive().data

# Layout

`frame`, `codec`, `checksum` and `numbers` are bytes; `flow`, `mailbox`, `peer` and `routing` decide; `wire`, `join`, `reading`,
`writing` and `keeper` move bytes; `comm`, `collectives` and `state` are what a rank can do with raw bytes, `message` is the
envelope of typed messages, and `job` and `handler` are what a program sees.

`executor`, with `pool`, is the other way to use workers: calls of functions. `call`, `failure`, `function` and `farm` say what travels, `driver`
and `calls` speak with the process that hands calls out, `future` and `chunks` are what waits for them; `worker` runs them, by means
of `runtime` on this machine.
"""

from typing import TYPE_CHECKING, Any

from .comm import Comm
from .errors import (
    ConnectionLostError,
    DeadlineError,
    EventError,
    LswitchError,
    MessageError,
    ProtocolError,
    ReceiveTimeout,
    RefusedError,
    StateError,
    TooLongError,
    UnreachableError,
    UsageError,
    WorkerLostError,
)
from .handler import handler
from .job import Job
from .mailbox import Message
from .release import RELEASE as __version__
from .state import Closed

if TYPE_CHECKING:
    from .driver import MissingBinaryError
    from .executor import Executor
    from .failure import RemoteError, RemoteTraceback
    from .pool import Pool

__all__ = [
    "Closed",
    "Comm",
    "ConnectionLostError",
    "DeadlineError",
    "EventError",
    "Executor",
    "Job",
    "LswitchError",
    "Message",
    "MessageError",
    "MissingBinaryError",
    "Pool",
    "ProtocolError",
    "ReceiveTimeout",
    "RefusedError",
    "RemoteError",
    "RemoteTraceback",
    "StateError",
    "TooLongError",
    "UnreachableError",
    "UsageError",
    "WorkerLostError",
    "__version__",
    "handler",
]

#: What functions in a job do not need is not imported for them.
_LATE = {
    "Executor": "executor",
    "MissingBinaryError": "driver",
    "Pool": "pool",
    "RemoteError": "failure",
    "RemoteTraceback": "failure",
}


def __getattr__(name: str) -> Any:
    module = _LATE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{module}", __name__), name)
