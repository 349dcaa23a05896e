"""Why a call failed.

Lambda tells the driver of a failed invocation the name of the exception's class and its words. What docs/EVENT.md gives
a name of its own has that name here too.
"""

from __future__ import annotations

from typing import Callable, Type, TypeVar

_Class = TypeVar("_Class", bound=Type[BaseException])


def _reported_as(name: str) -> Callable[[_Class], _Class]:
    """Lambda's runtime takes `__name__` for the error's type; tracebacks show `__qualname__`, which stays."""

    def rename(error: _Class) -> _Class:
        error.__name__ = name
        return error

    return rename


class LswitchError(Exception):
    """Any error of this package."""


@_reported_as("Lswitch.Event")
class EventError(LswitchError):
    """The event is of another version, is none of lswitch's, or asks for what this client does not have."""


@_reported_as("Lswitch.Unreachable")
class UnreachableError(LswitchError):
    """The switch cannot be reached, or what listens there is none."""


@_reported_as("Lswitch.Refused")
class RefusedError(LswitchError):
    """The switch refused the pack.

    `code` is the number of the refusal in docs/PROTOCOL.md, and `reason` the switch's words.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the switch refused the connection: {reason}")
        self.code = code
        self.reason = reason


@_reported_as("Lswitch.ConnectionLost")
class ConnectionLostError(LswitchError):
    """The connection or the job ended, or not all ranks joined in time."""


class DeadlineError(LswitchError):
    """A wait lasted until the invocation's deadline. The words name the rank, and whom and what it waited for."""


class ReceiveTimeout(LswitchError, TimeoutError):
    """No message came within the time that the caller gave. Nothing is lost; receive again."""


class UsageError(LswitchError, ValueError):
    """The program made a call that cannot be served."""


class ProtocolError(LswitchError):
    """Bytes that are not of the protocol, or break it."""


class MessageError(LswitchError):
    """A message cannot be put into an envelope or taken out of one."""


class TooLongError(MessageError):
    """A call or its result is over the limit."""


class WorkerLostError(LswitchError):
    """The workers that ran a call ended, one after the other: it was tried as often as `retries` says, and may be the cause."""


class StateError(LswitchError):
    """The switch refused a request of the shared state, which has changed nothing.

    `kind` is one of "malformed", "too large", "full", "overflow", "missing", "closed", "mismatch" and "range".
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
