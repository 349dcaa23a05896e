"""Raw bytes, as programs give them."""

from __future__ import annotations

from typing import Any, Union

from . import arrays
from .errors import UsageError

Data = Union[bytes, bytearray, memoryview]


def as_bytes(data: Any) -> bytes:
    """The bytes of anything that has a buffer; a copy unless it is `bytes`.

    Raises UsageError for anything else, and for what is more than the bytes in its buffer, such as a masked array.
    """
    if type(data) is bytes:
        return data
    if arrays.is_array(data) and arrays.misfit(data) is not None:
        raise UsageError(f"{arrays.misfit(data)}, has more than its raw bytes; give the bytes that are meant")
    try:
        return bytes(memoryview(data))
    except TypeError:
        raise UsageError(f"a message of raw bytes is bytes, bytearray or memoryview, not {type(data).__name__}") from None
