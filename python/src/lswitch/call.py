"""A call of a function, and its answer, as bytes: what goes between `lswitch.Executor` and `lswitch.worker`. Pure.

A call is

| size | field |
|---|---|
| 1 | how: 0 one call; 1 a call for each item; 2 the same, each item being the arguments; 3 as 1, and the results folded; 4 the items folded |
| 1 | form of what it is given: 0 nothing, 1 JSON, 2 a tree, 3 pickle; and 0x10 if the answer may be pickled, 0x20 if by cloudpickle |
| | the function or, of 3, two: u16 length and its name, `module:qualname`; or 0xffff, u32 length and its pickle |
| | what it is given |

One call is given, in JSON, a list of arguments, or {"args": [...], "kwargs": {...}}; as a tree (`lswitch.tree`) or pickled, the pair of both. The
others are given a list of items.

The answer to one call and to 3 and 4 is a message in its envelope; nothing stands for None. To the others it is a byte for the form, as above, and
the results. Of a call that failed it is u32 length and the error (`lswitch.failure`), and the results that came before it.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from . import farm, tree
from . import message as envelope
from .errors import MessageError
from .frame import U32

ONE, EACH, EACH_STAR, FOLD, REDUCE = range(5)
NOTHING, JSON, TREE, PICKLE = range(4)
MAY_PICKLE, MAY_CLOUDPICKLE = 0x10, 0x20

#: The longest call or answer, in bytes: that of a farm's tasks.
PAYLOAD_MAX = farm.PAYLOAD_MAX

_BY_VALUE = b"\xff\xff"

SERIALIZERS = (None, "pickle", "cloudpickle")

_SCALARS = frozenset([str, int, float, bool])

HINT = (
    f"{envelope.SENDABLE}; for anything else use Executor(serializer=\"pickle\"), or "
    "\"cloudpickle\", which lets workers run code that they are sent (--allow-pickle)"
)
REFUSED = (
    "a pickled call came, and pickle is off in this job, since it lets whoever sends a call run code in the worker; "
    "if you trust who calls, use Executor(serializer=\"pickle\"), which starts lswitch with --allow-pickle"
)



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
    given = list(args)
    # The names of arguments that do not stand in order are text.
    text = tree.to_json({"args": given, "kwargs": dict(kwargs)} if kwargs else given)
    if text is not None:
        return JSON, text
    try:
        return TREE, tree.encode((given, dict(kwargs)))
    except MessageError as error:
        raise _refusal(enumerate(given, 1), kwargs, error) from None


def items(how: int, given: List[Any], serializer: Optional[str]) -> Tuple[int, bytes]:
    """The form and the bytes of what several calls are given."""
    if serializer is not None:
        return PICKLE, dumps(given, serializer)
    text = tree.to_json(given)
    if text is not None:
        return JSON, text
    try:
        return TREE, tree.encode(given)
    except MessageError as error:
        for item in given:
            if tree.misfit(item) is not None:
                if how == EACH_STAR:
                    raise _refusal(enumerate(item, 1), {}, error) from None
                raise _refusal([], {"an item": item}, error) from None
        raise _refusal([], {}, error) from None


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
        found = tree.from_json(given)
        return (found, {}) if type(found) is list else (found["args"], found["kwargs"])
    args, kwargs = loads(given, allow_pickle) if kind == PICKLE else tree.decode(given)
    return args, kwargs


def given_to_each(form: int, given: bytes, allow_pickle: bool) -> List[Any]:
    """The items of several calls."""
    return _values(form & 0xF, given, allow_pickle)


def result(value: Any, form: int) -> bytes:
    """The answer to one call that is done."""
    if value is None:
        return b""
    if form & MAY_PICKLE and type(value) not in _SCALARS:
        return b"\3" + dumps(value, "cloudpickle" if form & MAY_CLOUDPICKLE else "pickle")
    text = tree.to_json(value)
    return b"\1" + text if text is not None else _enveloped(value)


def results(values: List[Any], form: int) -> bytes:
    """The answer to several."""
    if form & MAY_PICKLE:
        return b"\3" + dumps(values, "cloudpickle" if form & MAY_CLOUDPICKLE else "pickle")
    text = tree.to_json(values)
    if text is not None:
        return b"\1" + text
    try:
        return b"\2" + tree.encode(values)
    except MessageError as error:
        for value in values:
            part = tree.misfit(value)
            if part is not None:
                raise _refusal([], {"a result": value}, error) from None
        raise _refusal([], {}, error) from None


def read_result(data: bytes, allow_pickle: bool) -> Any:
    """What one call gave."""
    if not data:
        return None
    return envelope.decode(data, allow_pickle)


def read_results(data: bytes, allow_pickle: bool) -> List[Any]:
    """What several gave."""
    if not data:
        return []
    return _values(data[0], data[1:], allow_pickle)


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


def _values(form: int, data: bytes, allow_pickle: bool) -> List[Any]:
    if form == JSON:
        found = tree.from_json(data)
    elif form == PICKLE:
        found = loads(data, allow_pickle)
    else:
        found = tree.decode(data)
    if not isinstance(found, list):
        raise MessageError("a list of items or results is none; is the other side of the same release?")
    return found


def _enveloped(value: Any) -> bytes:
    try:
        return envelope.encode(value)
    except MessageError as error:
        raise _refusal([], {"the result": value}, error) from None


def _refusal(numbered: Iterable[Tuple[int, Any]], named: Mapping[str, Any], error: MessageError) -> MessageError:
    """Which of the values cannot be sent, and which part of it."""
    places = [*((f"argument {number}", value) for number, value in numbered), *named.items()]
    for place, value in places:
        part = tree.misfit(value)
        if part is not None:
            return MessageError(f"{part} ({place}): this cannot be sent as it is; {HINT}")
    return MessageError(f"{error}: this cannot be sent as it is; {HINT}")
