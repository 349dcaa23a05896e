"""Nested values as bytes, of which each part comes back as what it was: its type included. Pure.

Each part is a byte for its form, and then

| form | of | then |
|---|---|---|
| 0 | what JSON holds | u64 length, UTF-8 |
| 1 | a tuple of such | the same, as a list |
| 2 | a list of tuples of such | the same, as lists |
| 3 | text that JSON cannot hold | u64 length, UTF-8 with lone surrogates |
| 4 | an integer too long for JSON | u64 length, little-endian, two's complement |
| 5 | a complex number | two f64 |
| 6, 7 | bytes, a bytearray | u64 length, the bytes |
| 8, 9 | a list, a tuple | u64 count, each part |
| 10 | a dict | u64 count, each key (u64 length, UTF-8) and its part |
| 11, 12 | an array, a number of NumPy's | as `lswitch.arrays` has them |

What has none of these types itself is refused, subclasses too: a `Counter` would come as a dict. So are keys that are no text, which is all
that JSON has. `misfit` finds the part.
"""

from __future__ import annotations

import json
import struct
from itertools import chain
from typing import Any, List, Optional, Tuple

from . import arrays
from .arrays import a
from .errors import MessageError
from .frame import U64

(_JSON, _TUPLE_OF_JSON, _ROWS, _TEXT, _LONG, _COMPLEX, _BYTES, _BYTEARRAY, _LIST, _TUPLE, _DICT, _ARRAY, _NUMBER) = range(13)

#: How deep a value may be nested. Python's own stack, which the reader's recursion needs, has 1000 levels.
DEPTH_MAX = 200

_SCALARS = frozenset([str, int, float, bool, type(None)])
_OF_JSON = _SCALARS | {list, dict}
_COMPLEX_PARTS = struct.Struct("<dd")

#: What subclasses of are named as such in errors.
_BASES = (bool, int, float, complex, str, bytes, bytearray, dict, list, tuple)

#: How much of a key or a path is shown, in characters.
_SHOWN_MAX = 60

_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
_from_json = json.JSONDecoder().decode


class _Misfit(Exception):
    """Something in the value cannot be sent."""


def to_json(value: Any) -> Optional[bytes]:
    """As JSON, or None if it would be something else when it is received, or JSON cannot hold it."""
    return _json_text(value) if _is_json(value) else None


def from_json(data: bytes) -> Any:
    """Raises ValueError for what is no JSON."""
    return _from_json(data.decode())


def encode(value: Any) -> bytes:
    """A value as bytes.

    Raises MessageError, in whose words `misfit` puts it.
    """
    parts: List[bytes] = []
    try:
        _put(parts, value, 0)
    except _Misfit:
        raise MessageError(misfit(value) or a(type(value))) from None
    return b"".join(parts)


def decode(data: bytes, at: int = 0) -> Any:
    """The value that stands from `at` on, to the end.

    Raises MessageError if there is none.
    """
    try:
        value, end = _take(data, at, 0)
    except (IndexError, ValueError, struct.error, RecursionError) as error:
        raise MessageError(f"a message that says it holds a value holds none: {error}") from error
    if end != len(data):
        raise MessageError(f"a message has {len(data) - end} bytes after its value")
    return value


def misfit(value: Any, only_json: bool = False) -> Optional[str]:
    """The first part that cannot be sent, in words, with the way to it; None if all can."""
    found = _find(value, "", 0, only_json)
    if found is None:
        return None
    path, part, is_key = found
    if not path:
        return f"a dict with {part}" if is_key else part
    if len(path) > _SHOWN_MAX:
        path = path[:_SHOWN_MAX] + " ..."
    whole = a(type(value))
    return f"{whole} with a dict at {path} that has {part}" if is_key else f"{whole} with {part} at {path}"


def _is_json(value: Any, depth: int = 0) -> bool:
    """True if JSON holds it and gives it back with the same types."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is dict:
        if not set(map(type, value)) <= {str}:
            return False
        value = value.values()
    elif kind is not list:
        return False
    kinds = set(map(type, value))
    if kinds <= _SCALARS:
        return True
    return kinds <= _OF_JSON and depth < DEPTH_MAX and all(_is_json(part, depth + 1) for part in value)


def _json_text(value: Any) -> Optional[bytes]:
    try:
        return _to_json(value).encode()
    except ValueError:
        # Text with lone surrogates, of which JSON would make one character, or an integer with more digits than Python reads.
        return None


def _put(parts: List[bytes], value: Any, depth: int) -> None:
    kind = type(value)
    if depth > DEPTH_MAX:
        raise _Misfit
    if _is_json(value):
        text = _json_text(value)
        if text is not None:
            parts += (b"\0", U64.pack(len(text)), text)
            return
    if kind is str:
        text = value.encode("utf-8", "surrogatepass")
        parts += (b"\3", U64.pack(len(text)), text)
    elif kind is int:
        length = value.bit_length() // 8 + 1
        parts += (b"\4", U64.pack(length), value.to_bytes(length, "little", signed=True))
    elif kind is complex:
        parts += (b"\5", _COMPLEX_PARTS.pack(value.real, value.imag))
    elif kind is bytes or kind is bytearray:
        parts += (b"\6" if kind is bytes else b"\7", U64.pack(len(value)), value)
    elif kind is tuple or kind is list:
        if not _put_at_once(parts, value, kind):
            parts += (b"\x08" if kind is list else b"\x09", U64.pack(len(value)))
            for part in value:
                _put(parts, part, depth + 1)
    elif kind is dict:
        parts += (b"\x0a", U64.pack(len(value)))
        for key, part in value.items():
            if type(key) is not str:
                raise _Misfit
            text = key.encode("utf-8", "surrogatepass")
            parts += (U64.pack(len(text)), text)
            _put(parts, part, depth + 1)
    elif arrays.is_array(value) and arrays.misfit(value) is None:
        parts += (b"\x0b" if arrays.is_plain(value) else b"\x0c", arrays.encode(value))
    else:
        raise _Misfit


def _put_at_once(parts: List[bytes], value: Any, kind: type) -> bool:
    """Writes a tuple of what JSON holds, or a list of such tuples, as calls have many of; much faster than part by part."""
    if kind is tuple:
        form, fits = b"\1", all(map(_is_json, value))
    else:
        form, fits = b"\2", set(map(type, value)) == {tuple} and set(map(type, chain.from_iterable(value))) <= _SCALARS
    text = _json_text(value) if fits else None
    if text is None:
        return False
    parts += (form, U64.pack(len(text)), text)
    return True


def _take(data: bytes, at: int, depth: int) -> Tuple[Any, int]:
    if depth > DEPTH_MAX:
        raise ValueError(f"it is nested more than {DEPTH_MAX} deep")
    form = data[at]
    at += 1
    if form == _COMPLEX:
        return complex(*_COMPLEX_PARTS.unpack_from(data, at)), at + _COMPLEX_PARTS.size
    if form in (_ARRAY, _NUMBER):
        return arrays.decode(data, at, form == _NUMBER)
    if form > _NUMBER:
        raise ValueError(f"a part has the unknown form {form}")
    (length,) = U64.unpack_from(data, at)
    at += U64.size
    # A part is a byte long at least, so this bounds counts too.
    if length > len(data) - at:
        raise ValueError(f"a part of {length} where {len(data) - at} bytes are left")
    if form in (_LIST, _TUPLE):
        found: List[Any] = []
        for _ in range(length):
            part, at = _take(data, at, depth + 1)
            found.append(part)
        return found if form == _LIST else tuple(found), at
    if form == _DICT:
        pairs = {}
        for _ in range(length):
            (key_length,) = U64.unpack_from(data, at)
            at += U64.size
            if key_length > len(data) - at:
                raise ValueError(f"a key of {key_length} bytes where {len(data) - at} are left")
            key = data[at : at + key_length].decode("utf-8", "surrogatepass")
            pairs[key], at = _take(data, at + key_length, depth + 1)
        return pairs, at
    return _leaf(form, data[at : at + length]), at + length


def _leaf(form: int, piece: bytes) -> Any:
    if form == _JSON:
        return from_json(piece)
    if form == _TUPLE_OF_JSON:
        return tuple(_listed(from_json(piece)))
    if form == _ROWS:
        return [tuple(_listed(row)) for row in _listed(from_json(piece))]
    if form == _TEXT:
        return piece.decode("utf-8", "surrogatepass")
    if form == _LONG:
        return int.from_bytes(piece, "little", signed=True)
    return bytes(piece) if form == _BYTES else bytearray(piece)


def _listed(value: Any) -> List[Any]:
    if type(value) is not list:
        raise ValueError("JSON of something else where a list is due")
    return value


def _find(value: Any, path: str, depth: int, only_json: bool) -> Optional[Tuple[str, str, bool]]:
    """Of the first part that cannot be sent the way to it, its words, and whether it is a key."""
    kind = type(value)
    if depth > DEPTH_MAX:
        return "", f"{a(kind)} that is nested more than {DEPTH_MAX} deep, or holds itself", False
    if kind in _SCALARS:
        if only_json and _json_text(value) is None:
            return path, f"{a(kind)} that JSON cannot hold", False
        return None
    if kind is list or kind is tuple and not only_json:
        for index, part in enumerate(value):
            found = _find(part, f"{path}[{index}]", depth + 1, only_json)
            if found is not None:
                return found
        return None
    if kind is dict:
        for key, part in value.items():
            if type(key) is not str:
                why = "no text" if not isinstance(key, str) else "more than text"
                return path, f"the key {_shown(key)}, which is {why}", True
            found = _find(part, f"{path}[{_shown(key)}]", depth + 1, only_json)
            if found is not None:
                return found
        return None
    if kind in (complex, bytes, bytearray) and not only_json:
        return None
    if arrays.is_array(value):
        part = a(kind) if only_json else arrays.misfit(value)
        return None if part is None else (path, part, False)
    if kind not in _BASES:
        for base in _BASES:
            if isinstance(value, base):
                return path, f"{a(kind)}, which is more than {a(base)}", False
    return path, a(kind), False


def _shown(value: Any) -> str:
    """A key as Python writes it; some objects cannot even be written."""
    try:
        text = repr(value)
    except Exception:
        text = f"which is {a(type(value))}"
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + " ..."
