"""Numbers to bytes and back: lists, single numbers and NumPy's arrays, as vectors of one element type. Pure."""

from __future__ import annotations

import sys
from array import array
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple
from zlib import crc32

from . import arrays
from .errors import UsageError

try:
    import numpy as _np
except ImportError:
    _np = None  # type: ignore[assignment]


class Element(NamedTuple):
    """A type of numbers on the wire."""

    name: str
    #: In folds; see docs/PROTOCOL.md.
    code: int
    width: int
    #: Of `array` and of NumPy.
    typecode: str
    dtype: str


#: The types of Python's own numbers; True and False count as 1 and 0.
_NUMBERS = frozenset([int, float, bool])

ELEMENTS: Dict[str, Element] = {
    element.name: element
    for element in (
        Element("f64", 1, 8, "d", "<f8"),
        Element("f32", 2, 4, "f", "<f4"),
        Element("i64", 3, 8, "q", "<i8"),
        Element("u64", 4, 8, "Q", "<u8"),
    )
}


class Vector(NamedTuple):
    """Numbers as bytes, and how to give such bytes back in the form in which they came."""

    element: Element
    data: bytes
    restore: Callable[[bytes], Any]
    #: A mark of an array's shape, by which ranks find that theirs differ; 0 for what has no shape.
    shape: int = 0


def element_named(name: str) -> Element:
    element = ELEMENTS.get(name)
    if element is None:
        raise UsageError(f"{name!r} is no type of numbers; there are {', '.join(ELEMENTS)}")
    return element


def vector(values: Any, dtype: Optional[str] = None) -> Vector:
    """Takes an array, a list or a number apart.

    Without `dtype` an array has its own, floats are f64 and integers i64. All ranks must give the same type: ranks that may
    have floats on one and integers on the other say which.

    Raises UsageError for what is none, has more to it, such as a masked array, or does not fit the type.
    """
    if arrays.is_array(values):
        return _array(values, dtype)
    kind = type(values)
    if kind not in _NUMBERS and kind is not list and kind is not tuple:
        raise UsageError(f"a fold takes numbers, a list or tuple of numbers, or a NumPy array; this is {arrays.a(kind)}")
    numbers = [values] if kind in _NUMBERS else list(values)
    for index, number in enumerate(numbers):
        if type(number) not in _NUMBERS and (not arrays.is_array(number) or arrays.is_plain(number) or arrays.misfit(number) is not None):
            raise UsageError(f"a fold takes numbers; [{index}] is {arrays.a(type(number))}")
    if all(type(number) in _NUMBERS for number in numbers):
        if dtype is None:
            dtype = "f64" if float in set(map(type, numbers)) else "i64"
        element = element_named(dtype)
        data = packed(element, numbers)
    else:
        element, data, *_ = _array(_np.asarray(numbers), dtype)

    def restore(data: bytes) -> Any:
        found = unpacked(element, data)
        return found if kind is list else tuple(found) if kind is tuple else found[0]

    return Vector(element, data, restore)


def packed(element: Element, numbers: Any) -> bytes:
    """Numbers as bytes."""
    if arrays.is_array(numbers):
        return _array(numbers, element.name).data
    try:
        made = array(element.typecode, numbers)
    except (OverflowError, TypeError) as error:
        raise UsageError(f"the numbers are not all {element.name}: {error}") from None
    if sys.byteorder == "big":
        made.byteswap()
    return made.tobytes()


def unpacked(element: Element, data: bytes) -> List[Any]:
    """Bytes as a list of numbers."""
    made = array(element.typecode)
    made.frombytes(data)
    if sys.byteorder == "big":
        made.byteswap()
    return made.tolist()


def as_array(element: Element, data: bytes, shape: Optional[Tuple[int, ...]] = None) -> Any:
    """Bytes as a NumPy array that may be written to."""
    made = _np.frombuffer(data, dtype=element.dtype).astype(element.dtype[1:])
    return made if shape is None else made.reshape(shape)


def has_numpy() -> bool:
    return _np is not None


def _array(given: Any, dtype: Optional[str]) -> Vector:
    found = arrays.misfit(given)
    if found is not None:
        raise UsageError(f"{found}, cannot be folded; give the numbers that are meant, as an array")
    values = _np.asarray(given)
    if dtype is None:
        wanted = [element for element in ELEMENTS.values() if values.dtype == _np.dtype(element.dtype)]
        if not wanted:
            raise UsageError(
                f"an array of {values.dtype} cannot be folded; say dtype=, or convert it to one of {', '.join(ELEMENTS)}"
            )
        element = wanted[0]
    else:
        element = element_named(dtype)
        if not _np.can_cast(values.dtype, element.dtype, casting="same_kind"):
            raise UsageError(f"an array of {values.dtype} cannot be taken for {element.name} without loss")
    data = _np.ascontiguousarray(values, dtype=element.dtype).tobytes()
    shape = values.shape

    def restore(data: bytes) -> Any:
        found = as_array(element, data, shape)
        return found if arrays.is_plain(given) else found[()]

    return Vector(element, data, restore, _mark(shape))


def _mark(shape: Tuple[int, ...]) -> int:
    """16 bits that differ for most shapes that differ, and are 0 for none but that of a number."""
    return crc32(repr(shape).encode()) % 0xFFFF + 1 if shape else 0
