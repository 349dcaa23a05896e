"""NumPy's arrays and numbers as bytes. Pure.

| size | field |
|---|---|
| 1 | length of the dtype's name |
| | the name as NumPy writes it ("<f8"), with the order of bytes in it |
| 1 | dimensions |
| 8 each | their lengths, little-endian |
| | the elements in C order |

Only arrays whose class is `numpy.ndarray` itself travel. A subclass has something more, such as the mask of a masked array, which its elements
do not show.
"""

from __future__ import annotations

import struct
from typing import Any, Optional, Tuple

from .errors import MessageError

try:
    import numpy as _np
except ImportError:
    _np = None  # type: ignore[assignment]

#: NumPy's codes of types that are the same on every machine: not objects, records, or the long double, which differs between
#: processors.
_CODES = frozenset("?bhilqBHILQefdFDSUmM")

_DIMENSIONS_MAX = 64


def is_array(value: Any) -> bool:
    """True for whatever belongs to NumPy's arrays and numbers, subclasses included."""
    return _np is not None and isinstance(value, (_np.ndarray, _np.generic))


def is_plain(value: Any) -> bool:
    """True if the class is that of arrays itself."""
    return _np is not None and type(value) is _np.ndarray


def misfit(value: Any) -> Optional[str]:
    """Why an array or number of NumPy's cannot be sent, or None if it can."""
    kind = type(value)
    if isinstance(value, _np.ndarray):
        if kind is not _np.ndarray:
            return f"{a(kind)}, which is more than a numpy.ndarray"
        what = f"an array of {value.dtype}"
    else:
        what = a(kind)
        if kind is not value.dtype.type:
            return f"{what}, which is more than {a(value.dtype.type)}"
        if isinstance(value, (str, bytes)) and value[-1:] in ("\0", b"\0"):
            return f"{what} that ends in a zero, which NumPy drops"
    dtype = value.dtype
    if dtype.char not in _CODES:
        return what
    if dtype.metadata:
        return f"{what} with metadata"
    return None


def encode(value: Any) -> bytes:
    """An array or a number that is no misfit, as bytes."""
    array = _np.asarray(value)
    dtype = array.dtype
    name = dtype.str
    if _np.dtype(name).char != dtype.char:
        # There are two C types of this length, and the name is of the other.
        name = name[0] + dtype.char
    named = name.encode()
    head = bytes((len(named),)) + named + struct.pack(f"<B{array.ndim}Q", array.ndim, *array.shape)
    elements: bytes = array.tobytes()
    return head + elements


def decode(data: bytes, at: int, is_number: bool) -> Tuple[Any, int]:
    """The array or number that stands at `at`, and where it ends.

    Raises MessageError if there is none.
    """
    if _np is None:
        raise MessageError("an array came, and NumPy is not installed here; add it to the function")
    try:
        name_end = at + 1 + data[at]
        dtype = _np.dtype(data[at + 1 : name_end].decode("ascii"))
        dimensions = data[name_end]
        if dtype.char not in _CODES or dimensions > (0 if is_number else _DIMENSIONS_MAX):
            raise ValueError(f"it is of {dtype} with {dimensions} dimensions")
        shape = struct.unpack_from(f"<{dimensions}Q", data, name_end + 1)
        begin = name_end + 1 + 8 * dimensions
        count = 1
        for length in shape:
            count *= length
        end = begin + count * dtype.itemsize
        if end > len(data):
            raise ValueError(f"{len(data) - begin} bytes for {shape} of {dtype}")
        if begin == end:
            found = _np.zeros(shape, dtype=dtype)
        else:
            # A copy, which is aligned and may be written to.
            found = _np.frombuffer(data, dtype=dtype, count=count, offset=begin).copy().reshape(shape)
        return found[()] if is_number else found, end
    except (IndexError, ValueError, TypeError, OverflowError, SyntaxError, struct.error) as error:
        raise MessageError(f"a message that says it is an array is none: {error}") from error


def a(kind: type) -> str:
    """A class with its article."""
    name = name_of(kind)
    return f"an {name}" if name[:1] in "aeiou" else f"a {name}"


def name_of(kind: type) -> str:
    """A class by its full name, but for those that everybody knows."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
