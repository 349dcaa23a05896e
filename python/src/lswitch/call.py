"""A call of a function, and its answer, as bytes: what goes between `lswitch.Executor` and `lswitch.worker`. Pure.

A call is

| size | field |
|---|---|
| 1 | how: 0 one call; 1 a call for each item; 2 the same, each item being the arguments; 3 as 1, and the results folded; 4 the items folded |
| 1 | form of what it is given: 0 nothing, 1 JSON, 2 parts, 3 pickle; and 0x10 if the answer may be pickled, 0x20 if by cloudpickle |
| | the function or, of 3, two: u16 length and its name, `module:qualname`; or 0xffff, u32 length and its pickle |
| | what it is given |

One call is given, in JSON, a list of arguments, or {"args": [...], "kwargs": {...}}; pickled, the pair of both. The others are given a list of items.
Parts are messages in their envelopes (`lswitch.message`), each with a u32 length ahead; of one call the first is the JSON list of the
names of the last arguments; of 2 each part is parts itself.

The answer to one call and to 3 and 4 is a message in its envelope; nothing stands for None. To the others it is a byte for the form, as above, and
the results. Of a call that failed it is u32 length and the error (`lswitch.failure`), and the results that came before it.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from . import farm
from . import message as envelope
from .errors import MessageError
from .frame import U32

ONE, EACH, EACH_STAR, FOLD, REDUCE = range(5)
NOTHING, JSON, PARTS, PICKLE = range(4)
MAY_PICKLE, MAY_CLOUDPICKLE = 0x10, 0x20

#: The longest call or answer, in bytes: that of a farm's tasks.
PAYLOAD_MAX = farm.PAYLOAD_MAX

_BY_VALUE = b"\xff\xff"

SERIALIZERS = (None, "pickle", "cloudpickle")

HINT = (
    "bytes, what JSON can hold and NumPy's arrays can be sent; for anything else use Executor(serializer=\"pickle\"), or "
    "\"cloudpickle\", which lets workers run code that they are sent (--allow-pickle)"
)
REFUSED = (
    "a pickled call came, and pickle is off in this job, since it lets whoever sends a call run code in the worker; "
    "if you trust who calls, use Executor(serializer=\"pickle\"), which starts lswitch with --allow-pickle"
)

_SCALARS = frozenset([str, int, float, bool, type(None)])
_to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_from_json = json.JSONDecoder().decode


class Call(NamedTuple):
    """A call, taken apart: who is called, by name or pickled, and what it is given."""

    how: int
    form: int
    functions: Tuple[Union[str, bytes], ...]
    given: bytes


def head(how: int, form: int, functions: Sequence[Union[str, bytes]], serializer: Optional[str]) -> bytes:
    """What goes ahead of what a call is given."""
    if serializer is not None:
        form |= MAY_PICKLE | (MAY_CLOUDPICKLE if serializer == "cloudpickle" else 0)
    parts = [bytes((how, form))]
    for function in functions:
        if isinstance(function, str):
            name = function.encode()
            parts.append(len(name).to_bytes(2, "little") + name)
        else:
            parts.append(_BY_VALUE + U32.pack(len(function)) + function)
    return b"".join(parts)


def arguments(args: Tuple[Any, ...], kwargs: Mapping[str, Any], serializer: Optional[str]) -> Tuple[int, bytes]:
    """The form and the bytes of one call's arguments."""
    if not args and not kwargs:
        return NOTHING, b""
    if serializer is not None:
        return PICKLE, dumps((args, dict(kwargs)), serializer)
    if not kwargs:
        # Most are short, and need no close look.
        for value in args:
            if type(value) not in _SCALARS:
                break
        else:
            return JSON, _to_json(args).encode()
    whole: Any = {"args": list(args), "kwargs": dict(kwargs)} if kwargs else list(args)
    text = _json(whole)
    if text is not None:
        return JSON, text
    return PARTS, _packed([_json_or_raise(list(kwargs)), *map(_enveloped, args), *map(_enveloped, kwargs.values())])


def items(how: int, given: List[Any], serializer: Optional[str]) -> Tuple[int, bytes]:
    """The form and the bytes of what several calls are given."""
    if serializer is not None:
        return PICKLE, dumps(given, serializer)
    text = _json(given)
    if text is not None:
        return JSON, text
    if how == EACH_STAR:
        return PARTS, _packed([_packed(list(map(_enveloped, item))) for item in given])
    return PARTS, _packed(list(map(_enveloped, given)))


def parse(data: bytes) -> Call:
    """Takes a call apart.

    Raises MessageError if it is none.
    """
    try:
        how, form = data[0], data[1]
        at = 2
        functions: List[Union[str, bytes]] = []
        for _ in range(2 if how == FOLD else 1):
            length = int.from_bytes(data[at : at + 2], "little")
            at += 2
            by_value = length == 0xFFFF
            if by_value:
                (length,) = U32.unpack_from(data, at)
                at += 4
            piece = data[at : at + length]
            if len(piece) != length:
                raise ValueError("it is too short")
            functions.append(piece if by_value else piece.decode())
            at += length
    except (IndexError, ValueError, ArithmeticError) as error:
        raise MessageError(f"a call that this worker does not understand: {error}") from None
    return Call(how, form, tuple(functions), data[at:])


def given_to_one(form: int, given: bytes, allow_pickle: bool) -> Tuple[Sequence[Any], Dict[str, Any]]:
    """The arguments of one call."""
    kind = form & 0xF
    if kind == NOTHING:
        return (), {}
    if kind == JSON:
        found = _from_json(given.decode())
        return (found, {}) if type(found) is list else (found["args"], found["kwargs"])
    if kind == PICKLE:
        args, kwargs = loads(given, allow_pickle)
        return args, kwargs
    names, *parts = _unpacked(given)
    values = [envelope.decode(part) for part in parts]
    keywords = json.loads(names)
    positional = len(values) - len(keywords)
    return values[:positional], dict(zip(keywords, values[positional:]))


def given_to_each(how: int, form: int, given: bytes, allow_pickle: bool) -> List[Any]:
    """The items of several calls."""
    kind = form & 0xF
    if kind == JSON:
        found: List[Any] = _from_json(given.decode())
        return found
    if kind == PICKLE:
        found = loads(given, allow_pickle)
        return found
    if how == EACH_STAR:
        return [[envelope.decode(part) for part in _unpacked(item)] for item in _unpacked(given)]
    return [envelope.decode(part) for part in _unpacked(given)]


def result(value: Any, form: int) -> bytes:
    """The answer to one call that is done."""
    if value is None:
        return b""
    kind = type(value)
    if kind is int or kind is bool or kind is str or kind is float:
        return b"\1" + _to_json(value).encode()
    if form & MAY_PICKLE:
        return b"\3" + dumps(value, "cloudpickle" if form & MAY_CLOUDPICKLE else "pickle")
    return _enveloped(value)


def results(values: List[Any], form: int) -> bytes:
    """The answer to several."""
    if form & MAY_PICKLE:
        return b"\3" + dumps(values, "cloudpickle" if form & MAY_CLOUDPICKLE else "pickle")
    text = _json(values)
    return b"\1" + text if text is not None else b"\2" + _packed(list(map(_enveloped, values)))


def read_result(data: bytes, allow_pickle: bool) -> Any:
    """What one call gave."""
    if not data:
        return None
    if data[0] == envelope.JSON:
        return _from_json(data[1:].decode())
    return envelope.decode(data, allow_pickle)


def read_results(data: bytes, allow_pickle: bool) -> List[Any]:
    """What several gave."""
    if not data:
        return []
    kind = data[0]
    if kind == JSON:
        found: List[Any] = _from_json(data[1:].decode())
        return found
    if kind == PICKLE:
        found = loads(data[1:], allow_pickle)
        return found
    return [envelope.decode(part) for part in _unpacked(data[1:])]


def failed(error: bytes, before: bytes = b"") -> bytes:
    """The answer to a call that failed, and to those before it in the same message."""
    return U32.pack(len(error)) + error + before


def read_failed(data: bytes) -> Tuple[bytes, bytes]:
    """The error, and the answer to those before."""
    length = int.from_bytes(data[:4], "little")
    if len(data) < 4 + length:
        raise MessageError("a failed call's answer is too short")
    return data[4 : 4 + length], data[4 + length :]


def dumps(value: Any, serializer: str) -> bytes:
    """Pickles, by value what cannot be by name if it is "cloudpickle"."""
    return envelope.encode(value, serializer, True)[1:]


def loads(data: bytes, allow_pickle: bool) -> Any:
    if not allow_pickle:
        raise MessageError(REFUSED)
    return envelope.decode(b"\3" + data, True)


def _json(value: Any) -> Optional[bytes]:
    """As JSON, or None if it would be something else when it is received, or cannot be JSON at all."""
    try:
        envelope.check_json(value)
        return _to_json(value).encode()
    except (MessageError, TypeError, ValueError):
        return None


def _json_or_raise(value: Any) -> bytes:
    return envelope.encode(value, "json")[1:]


def _enveloped(value: Any) -> bytes:
    try:
        return envelope.encode(value)
    except MessageError:
        raise MessageError(f"a {type(value).__name__} cannot be sent as it is: {HINT}") from None


def _packed(parts: List[bytes]) -> bytes:
    return b"".join(piece for part in parts for piece in (U32.pack(len(part)), part))


def _unpacked(data: bytes) -> List[bytes]:
    parts: List[bytes] = []
    at = 0
    while at + 4 <= len(data):
        (length,) = U32.unpack_from(data, at)
        parts.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(data):
        raise MessageError("a call's parts are cut off")
    return parts

