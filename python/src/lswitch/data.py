"""Raw bytes, as programs give them."""

from __future__ import annotations

from typing import Any, Union

from .errors import UsageError

Data = Union[bytes, bytearray, memoryview]


def as_bytes(data: Any) -> bytes:
    """The bytes of anything that has a buffer; a copy unless it is `bytes`.

    Raises UsageError for anything else.
    """
    if type(data) is bytes:
        return data
    try:
        return bytes(memoryview(data))
    except TypeError:
        raise UsageError(f"a message of raw bytes is bytes, bytearray or memoryview, not {type(data).__name__}") from None
