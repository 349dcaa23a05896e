"""The envelope of typed messages: one byte that says the kind, and then the message. Pure.

| first byte | kind | then |
|---|---|---|
| 0 | bytes | the bytes |
| 1 | JSON | UTF-8: text, numbers, lists, objects, true, false, null; NaN and Infinity as Python writes them |
| 2 | array | an array with at least one dimension, or a number of NumPy's (`lswitch.arrays`) |
| 3 | pickle | what `pickle` writes |
| 4 | tree | tuples, bytes, arrays and what JSON holds, one in another (`lswitch.tree`) |

Without a serializer a message is received as what it was, with the same types in all its parts, or it is refused. Pickle runs code of the
sender's choice when it is read, so it is read only where the event allows it.
"""

from __future__ import annotations

import pickle
from typing import Any, Optional

from . import arrays, tree
from .errors import MessageError

BYTES, JSON, ARRAY, PICKLE, TREE = range(5)
SERIALIZERS = (None, "json", "pickle", "cloudpickle")

#: What can be sent without a serializer, for errors.
SENDABLE = "text, numbers, bytes, lists, tuples, dicts with text for keys, and NumPy's arrays and numbers can be sent"

ALLOW_PICKLE = (
    "pickle is off in this job, since it lets whoever sends a message run code in whoever receives it; "
    "if all ranks are yours, start the job with \"lswitch invoke run --allow-pickle\""
)


def encode(message: Any, serializer: Optional[str] = None, allow_pickle: bool = False) -> bytes:
    """A message in its envelope.

    Raises MessageError for what does not go, or would be something else when it is received; it names the part.
    """
    if serializer is None:
        if type(message) is bytes:
            return b"\0" + message
        text = tree.to_json(message)
        if text is not None:
            return b"\1" + text
        if arrays.is_array(message) and arrays.misfit(message) is None and (message.ndim or not arrays.is_plain(message)):
            return b"\2" + arrays.encode(message)
        try:
            return b"\4" + tree.encode(message)
        except MessageError as error:
            raise MessageError(
                f"{error}: this cannot be sent as it is; {SENDABLE}, and anything with serializer=\"pickle\" where the job allows it"
            ) from None
    if serializer == "json":
        text = tree.to_json(message)
        if text is None:
            part = tree.misfit(message, only_json=True)
            raise MessageError(f"{part}: this cannot be sent as JSON; without a serializer more can be sent")
        return b"\1" + text
    if serializer not in SERIALIZERS:
        raise MessageError(f"{serializer!r} is no serializer; there are \"json\", \"pickle\" and \"cloudpickle\"")
    if not allow_pickle:
        raise MessageError(ALLOW_PICKLE)
    try:
        if serializer == "pickle":
            return b"\3" + pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        by_value: bytes = _cloudpickle().dumps(message)
        return b"\3" + by_value
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        hint = "; serializer=\"cloudpickle\" takes functions by value" if serializer == "pickle" else ""
        raise MessageError(f"a {type(message).__name__} cannot be pickled: {error}{hint}") from error


def decode(data: bytes, allow_pickle: bool = False) -> Any:
    """The message in an envelope.

    Raises MessageError when there is none, or it is pickled and that is not allowed.
    """
    if not data:
        raise MessageError("a message without an envelope; who sends raw bytes is received with job.comm.receive")
    kind = data[0]
    if kind == BYTES:
        return data[1:]
    if kind == JSON:
        try:
            return tree.from_json(data[1:])
        except (ValueError, RecursionError) as error:
            raise MessageError(f"a message that says it is JSON is none: {error}") from error
    if kind == ARRAY:
        return _decode_array(data)
    if kind == TREE:
        return tree.decode(data, 1)
    if kind == PICKLE:
        if not allow_pickle:
            raise MessageError("a pickled message came; " + ALLOW_PICKLE)
        try:
            return pickle.loads(memoryview(data)[1:])
        except Exception as error:
            hint = ""
            if isinstance(error, ImportError):
                hint = "; what it was made of must be importable here, or sent with serializer=\"cloudpickle\""
            raise MessageError(f"a pickled message cannot be read: {type(error).__name__}: {error}{hint}") from error
    raise MessageError(
        f"a message of the unknown kind {kind}; who sends raw bytes is received with job.comm.receive"
    )


def _decode_array(data: bytes) -> Any:
    # What has no dimensions is a number; an array without any is a part of a tree.
    is_number = len(data) > 1 and len(data) > 2 + data[1] and data[2 + data[1]] == 0
    found, end = arrays.decode(data, 1, is_number)
    if end != len(data):
        raise MessageError(f"a message that says it is an array is none: {len(data) - end} bytes follow it")
    return found


def _cloudpickle() -> Any:
    try:
        import cloudpickle  # type: ignore[import-untyped]
    except ImportError:
        raise MessageError(
            "cloudpickle is not installed here; add it to the function: pip install 'lswitch[cloudpickle]'"
        ) from None
    return cloudpickle
