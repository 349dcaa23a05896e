"""An exception of a call, on its way from the worker to the caller: its type, its words, where it was raised; pickled too, where that is
allowed."""

from __future__ import annotations

import builtins
import json
import pickle
import sys
import traceback
from typing import Any, Dict, Optional

from .errors import LswitchError
from .frame import U32

#: What is kept of words and of a traceback, in characters.
_TEXT_MAX = 64 * 1024

_SCALARS = frozenset([str, int, float, bool, type(None)])


class RemoteError(LswitchError):
    """A call failed with an exception that could not be made again here.

    `type` is the name of its class, and `traceback` the worker's.
    """

    def __init__(self, type: str, message: str, traceback: str = "") -> None:
        super().__init__(f"{type}: {message}" if message else type)
        self.type = type
        self.traceback = traceback


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a worker: its traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def pack(error: BaseException, may_pickle: bool, skipped: int = 0) -> bytes:
    """An exception as bytes; the first `skipped` frames of its traceback are the worker's own."""
    trace = error.__traceback__
    for _ in range(skipped):
        trace = trace.tb_next if trace is not None and trace.tb_next is not None else trace
    kind = type(error)
    told: Dict[str, Any] = {
        "type": kind.__qualname__,
        "module": kind.__module__,
        "message": _words(error)[:_TEXT_MAX],
        "traceback": "".join(traceback.format_exception(kind, error, trace))[-_TEXT_MAX:],
    }
    if all(type(argument) in _SCALARS for argument in error.args):
        told["args"] = list(error.args)
    text = json.dumps(told).encode()
    if len(text) > 4 * _TEXT_MAX:
        told.pop("args", None)
        text = json.dumps(told).encode()
    pickled = b""
    if may_pickle:
        try:
            pickled = pickle.dumps(error, protocol=pickle.HIGHEST_PROTOCOL)
            pickle.loads(pickled)
        except Exception:
            pickled = b""
        if len(pickled) > 4 << 20:
            pickled = b""
    return U32.pack(len(text)) + text + pickled


def unpack(data: bytes, allow_pickle: bool) -> BaseException:
    """The exception to raise in the caller, with the worker's traceback as its cause."""
    try:
        (length,) = U32.unpack_from(data, 0)
        told = json.loads(data[4 : 4 + length])
        pickled = data[4 + length :]
        kind, module, message = str(told["type"]), str(told["module"]), str(told["message"])
        text = str(told["traceback"])
    except Exception:
        return RemoteError("an error", "that came in no form that this client reads")
    error: Optional[BaseException] = None
    if pickled and allow_pickle:
        try:
            error = pickle.loads(pickled)
        except Exception:
            error = None
    if not isinstance(error, BaseException):
        error = _made_again(kind, module, told.get("args"), message)
    if error is None:
        name = kind if module in ("builtins", "__main__") else f"{module}.{kind}"
        error = RemoteError(name, message, text)
    error.__cause__ = RemoteTraceback(text)
    return error


def _made_again(kind: str, module: str, args: Any, message: str) -> Optional[Exception]:
    """From its class, if that is known here already, and nothing but text and numbers went into it."""
    found: Any = builtins if module == "builtins" else sys.modules.get(module)
    for name in kind.split("."):
        found = getattr(found, name, None)
    if not (isinstance(found, type) and issubclass(found, Exception)) or not isinstance(args, list):
        return None
    try:
        error = found(*args)
        return error if str(error) == message else None
    except Exception:
        return None


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its words cannot be read)"
