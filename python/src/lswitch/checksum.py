"""CRC32C (Castagnoli), which checks messages where the switch does not know the feature CRC32.

Formulation: a register is advanced by four bytes with two tables of 65,536 entries, made from the images of single bits,
since a CRC is linear. With NumPy a long message is cut into lanes of 256 bytes that advance side by side; neighbours are then
joined, the left one moved on by the bytes of the right one, in a tree. Lanes of zeros in front change nothing, so that
their number may be a power of two.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, List, Tuple, Union

try:
    import numpy as _np
except ImportError:
    _np = None  # type: ignore[assignment]

_POLYNOMIAL = 0x82F63B78
#: Below this many bytes the lanes cost more than they save.
_LANES_FROM = 2048
#: Below this many bytes the fixed costs matter more than the rest.
_SHORT = 512
#: Words of four bytes in a lane.
_LANE_WORDS = 64
#: Words that are unpacked at once, which bounds the memory for them.
_BLOCK_WORDS = 4096


def _after_zeros(register: int, count: int) -> int:
    """The register after `count` zero bytes."""
    for _ in range(8 * count):
        register = (register >> 1) ^ (_POLYNOMIAL if register & 1 else 0)
    return register


def _spread(images: List[int]) -> List[int]:
    """All combinations of the images of single bits."""
    table = [0]
    for image in images:
        table += [entry ^ image for entry in table]
    return table


class _Tables:
    """Made at first use: most messages never need them."""

    def __init__(self) -> None:
        images = [_after_zeros(1 << bit, 4) for bit in range(32)]
        self.low = _spread(images[:16])
        self.high = _spread(images[16:])
        self.byte = _spread([_after_zeros(1 << bit, 1) for bit in range(8)])
        self.shifts: List[Any] = []
        if _np is not None:
            self.lanes_low = _np.array(self.low, dtype=_np.uint32)
            self.lanes_high = _np.array(self.high, dtype=_np.uint32)
            self.images = [_after_zeros(1 << bit, 4 * _LANE_WORDS) for bit in range(32)]

    def shift(self, level: int) -> Any:
        """Four tables that move registers on by the bytes of 2^level lanes."""
        while len(self.shifts) <= level:
            tables = _np.array([_spread(self.images[at : at + 8]) for at in range(0, 32, 8)], dtype=_np.uint32)
            self.shifts.append(tables)
            # Twice as far: each image is moved on once more.
            self.images = [int(image) for image in _moved(_np.array(self.images, dtype=_np.uint32), tables)]
        return self.shifts[level]


def _moved(registers: Any, tables: Any) -> Any:
    first, second, third, fourth = tables
    return (
        first[registers & 0xFF]
        ^ second[(registers >> 8) & 0xFF]
        ^ third[(registers >> 16) & 0xFF]
        ^ fourth[registers >> 24]
    )


_tables: List[_Tables] = []


def _made() -> _Tables:
    if not _tables:
        _tables.append(_Tables())
    return _tables[0]


def _lanes(register: int, data: memoryview) -> Tuple[int, int]:
    """Advances over as many whole lanes as there are; gives the register and how many bytes were passed."""
    tables = _made()
    count = len(data) // (4 * _LANE_WORDS)
    words = _np.frombuffer(data, dtype="<u4", count=count * _LANE_WORDS).reshape(count, _LANE_WORDS)
    # One row for each place in a lane; a copy, in which the register can go ahead of the first word.
    rows = words.T.astype(_np.uint32, order="C")
    rows[0, 0] ^= register
    registers = _np.zeros(count, dtype=_np.uint32)
    low, high = tables.lanes_low, tables.lanes_high
    for row in rows:
        registers ^= row
        registers = low[registers & 0xFFFF] ^ high[registers >> 16]
    level = 0
    while len(registers) > 1:
        if len(registers) % 2:
            registers = _np.concatenate((_np.zeros(1, dtype=_np.uint32), registers))
        registers = _moved(registers[0::2], tables.shift(level)) ^ registers[1::2]
        level += 1
    return int(registers[0]), count * 4 * _LANE_WORDS


def _words(register: int, data: memoryview) -> int:
    tables = _made()
    low, high = tables.low, tables.high
    whole = len(data) // 4
    for begin in range(0, whole, _BLOCK_WORDS):
        count = min(_BLOCK_WORDS, whole - begin)
        for word in _struct_of(count).unpack_from(data, 4 * begin):
            register ^= word
            register = low[register & 0xFFFF] ^ high[register >> 16]
    return _bytes(register, data[4 * whole :])


def _bytes(register: int, data: Union[bytes, memoryview]) -> int:
    table = _made().byte
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register


@lru_cache(maxsize=256)
def _struct_of(words: int) -> struct.Struct:
    return struct.Struct(f"<{words}I")


def crc32c(data: Union[bytes, bytearray, memoryview], crc: int = 0) -> int:
    """The CRC32C of bytes, or of what has the CRC32C `crc` followed by them. Of no bytes it is 0."""
    register = crc ^ 0xFFFFFFFF
    if len(data) < _SHORT and type(data) is bytes:
        tables = _tables[0] if _tables else _made()
        low, high = tables.low, tables.high
        whole = len(data) & ~3
        for word in _struct_of(whole >> 2).unpack_from(data):
            register ^= word
            register = low[register & 0xFFFF] ^ high[register >> 16]
        if whole != len(data):
            register = _bytes(register, data[whole:])
        return register ^ 0xFFFFFFFF
    view = memoryview(data).cast("B")
    if _np is not None and len(view) >= _LANES_FROM:
        register, passed = _lanes(register, view)
        view = view[passed:]
    return _words(register, view) ^ 0xFFFFFFFF
