"""Numbers to bytes and back: lists, single numbers and NumPy's arrays, as vectors of one element type. Pure."""

from __future__ import annotations

import sys
from array import array
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

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


def element_named(name: str) -> Element:
    element = ELEMENTS.get(name)
    if element is None:
        raise UsageError(f"{name!r} is no type of numbers; there are {', '.join(ELEMENTS)}")
    return element


def vector(values: Any, dtype: Optional[str] = None) -> Vector:
    """Takes an array, a list or a number apart.

    Without `dtype` an array has its own, floats are f64 and integers i64. All ranks must give the same type: ranks that may
    have floats on one and integers on the other say which.

    Raises UsageError for what is none, or does not fit the type.
    """
    if _np is not None and isinstance(values, (_np.ndarray, _np.generic)):
        return _array(_np.asarray(values), dtype)
    single = isinstance(values, (int, float))
    numbers = [values] if single else list(values)
    if not all(isinstance(number, (int, float)) for number in numbers):
        if _np is not None and all(isinstance(number, (int, float, _np.generic)) for number in numbers):
            return _array(_np.asarray(numbers), dtype)._replace(restore=lambda data: unpacked(element, data))
        raise UsageError("a fold takes numbers, a list of numbers, or a NumPy array")
    if dtype is None:
        dtype = "f64" if any(isinstance(number, float) for number in numbers) else "i64"
    element = element_named(dtype)
    data = packed(element, numbers)
    if single:
        return Vector(element, data, lambda data: unpacked(element, data)[0])
    return Vector(element, data, lambda data: unpacked(element, data))


def packed(element: Element, numbers: Any) -> bytes:
    """Numbers as bytes."""
    if _np is not None and isinstance(numbers, _np.ndarray):
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


def _array(values: Any, dtype: Optional[str]) -> Vector:
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
        return found[()] if shape == () else found

    return Vector(element, data, restore)
