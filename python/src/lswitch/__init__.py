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
"""

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
    UnreachableError,
    UsageError,
)
from .handler import handler
from .job import Job
from .mailbox import Message
from .release import RELEASE as __version__
from .state import Closed

__all__ = [
    "Closed",
    "Comm",
    "ConnectionLostError",
    "DeadlineError",
    "EventError",
    "Job",
    "LswitchError",
    "Message",
    "MessageError",
    "ProtocolError",
    "ReceiveTimeout",
    "RefusedError",
    "StateError",
    "UnreachableError",
    "UsageError",
    "__version__",
    "handler",
]
