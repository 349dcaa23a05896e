"""The envelope of typed messages: one byte that says the kind, and then the message. Pure.

| first byte | kind | then |
|---|---|---|
| 0 | bytes | the bytes |
| 1 | JSON | UTF-8: text, numbers, lists, objects, true, false, null; NaN and Infinity as Python writes them |
| 2 | array | u8 length of the dtype's name, the name as NumPy writes it ("<f8"), u8 dimensions, u64 for each, the elements in C order |
| 3 | pickle | what `pickle` writes |

Numbers are little-endian. Pickle runs code of the sender's choice when it is read, so it is read only where the event allows
it.
"""

from __future__ import annotations

import json
import pickle
import struct
from typing import Any, Optional

from .errors import MessageError

try:
    import numpy as _np
except ImportError:
    _np = None  # type: ignore[assignment]

BYTES, JSON, ARRAY, PICKLE = range(4)
SERIALIZERS = (None, "json", "pickle", "cloudpickle")

_SCALARS = frozenset([str, int, float, bool, type(None)])
_DIMENSIONS_MAX = 32

ALLOW_PICKLE = (
    "pickle is off in this job, since it lets whoever sends a message run code in whoever receives it; "
    "if all ranks are yours, start the job with \"lswitch invoke run --allow-pickle\""
)


def encode(message: Any, serializer: Optional[str] = None, allow_pickle: bool = False) -> bytes:
    """A message in its envelope.

    Without a serializer bytes, arrays and what JSON can hold are told apart by their type. A tuple is received as a list.

    Raises MessageError for what does not go, or would be something else when it is received.
    """
    if serializer is None:
        if type(message) is bytes:
            return b"\0" + message
        if isinstance(message, (bytes, bytearray, memoryview)):
            return b"\0" + bytes(message)
        if _np is not None and isinstance(message, (_np.ndarray, _np.generic)):
            return _encode_array(_np.asarray(message))
        return _encode_json(message)
    if serializer == "json":
        return _encode_json(message)
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
            return json.loads(data[1:])
        except ValueError as error:
            raise MessageError(f"a message that says it is JSON is none: {error}") from error
    if kind == ARRAY:
        return _decode_array(data)
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


def _encode_json(message: Any) -> bytes:
    check_json(message)
    try:
        try:
            return b"\1" + json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            # Text with halves of characters, which only escapes can hold.
            return b"\1" + json.dumps(message, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise MessageError(
            f"a {type(message).__name__} is no message: {error}; bytes, what JSON can hold, and NumPy's arrays are, "
            "and anything with serializer=\"pickle\" where the job allows it"
        ) from error


def check_json(message: Any, depth: int = 0) -> None:
    """Keys that are no text would be text when they are received, and nobody would be told."""
    if depth > 200:
        raise MessageError("a message that is nested more than 200 deep, or holds itself")
    if isinstance(message, dict):
        if not set(map(type, message)) <= {str} and not all(isinstance(key, str) for key in message):
            raise MessageError(
                "a dict whose keys are not all text would come as another; send a list of pairs, or pickle it where the "
                "job allows it (serializer=\"pickle\")"
            )
        message = list(message.values())
    if isinstance(message, (list, tuple)) and not set(map(type, message)) <= _SCALARS:
        for part in message:
            check_json(part, depth + 1)


def _encode_array(array: Any) -> bytes:
    if array.dtype.kind not in "biufcSUmM":
        raise MessageError(f"an array of {array.dtype} cannot be sent; numbers, text and times can")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    name: bytes = array.dtype.newbyteorder("<").str.encode()
    head = bytes([ARRAY, len(name)]) + name + struct.pack(f"<B{array.ndim}Q", array.ndim, *array.shape)
    elements: bytes = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).tobytes()
    return head + elements


def _decode_array(data: bytes) -> Any:
    if _np is None:
        raise MessageError("an array came, and NumPy is not installed here; add it to the function")
    try:
        name_end = 2 + data[1]
        dtype = _np.dtype(data[2:name_end].decode("ascii"))
        dimensions = data[name_end]
        if dtype.kind not in "biufcSUmM" or dimensions > _DIMENSIONS_MAX:
            raise ValueError(f"it is of {dtype} with {dimensions} dimensions")
        shape = struct.unpack_from(f"<{dimensions}Q", data, name_end + 1)
        at = name_end + 1 + 8 * dimensions
        count = 1
        for length in shape:
            count *= length
        if len(data) - at != count * dtype.itemsize:
            raise ValueError(f"{len(data) - at} bytes for {shape} of {dtype}")
        if count * dtype.itemsize == 0:
            return _np.zeros(shape, dtype=dtype.newbyteorder("="))
        # A copy, which is aligned and may be written to.
        found = _np.frombuffer(data, dtype=dtype, count=count, offset=at).astype(dtype.newbyteorder("="))
        return found.reshape(shape)[()] if shape == () else found.reshape(shape)
    except (IndexError, ValueError, TypeError, OverflowError, struct.error) as error:
        raise MessageError(f"a message that says it is an array is none: {error}") from error


def _cloudpickle() -> Any:
    try:
        import cloudpickle  # type: ignore[import-untyped]
    except ImportError:
        raise MessageError(
            "cloudpickle is not installed here; add it to the function: pip install 'lswitch[cloudpickle]'"
        ) from None
    return cloudpickle
