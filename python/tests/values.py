"""Values of all kinds for tests of messages: each comes whole, or is refused with the part that cannot be sent."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import pathlib
import random
import warnings
from typing import Any, List, Tuple

try:
    import numpy as np
except ImportError:
    np = None  # type: ignore[assignment]
try:
    import pandas as pd
except ImportError:
    pd = None  # type: ignore[assignment]


class Level(enum.IntEnum):
    HIGH = 3


class Name(str):
    pass


class Length(float):
    pass


class Rows(list):
    pass


Point = collections.namedtuple("Point", "x y")


def whole() -> List[Any]:
    """Values that can be sent."""
    values: List[Any] = [
        *(None, True, False, 0, 1, -1, 2**53 + 1, -(2**63), 2**64, 2**80, 10**5000, -(2**40_000)),
        *(0.0, -0.0, 1.5, 5e-324, 1e308, float("inf"), float("-inf"), 1 + 2j, complex("-0j")),
        *("", "text", "\0", "\u2028", "\ud800", "\ud83d\ude00", "\U0001f600", b"", b"\0\xff", bytearray(b"ab"), bytearray()),
        *([], (), {}, [[]], [()], ((),), ({},), [(1, 2), (3, 4)], [(1, "\ud800")], [(1,), [2]], (1, (2, [3, {"k": (4,)}]))),
        *({"1": 1, "a": (1, 2)}, {"": b"x"}, {"\ud800": 1}, [b"a", "a", bytearray(b"a"), None], [True, 1, 1.0], {"key": [1.25, "x"]}),
    ]
    if np is not None:
        values += [
            *(np.int8(-1), np.uint64(2**64 - 1), np.longlong(5), np.float16(0.5), np.float64(1.5), np.float32("inf"), np.complex64(1j)),
            *(np.bool_(True), np.str_("text"), np.str_(""), np.bytes_(b"ab"), np.datetime64("2020-01-01T00:00", "ns")),
            *(np.datetime64("NaT"), np.timedelta64(3, "25s"), np.array(5), np.array("text"), np.array([np.nan, -0.0])),
            *(np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).T, np.arange(10)[::-2], np.zeros((0, 4), "f4"), np.zeros((2, 0, 3))),
            *(np.arange(3, dtype=">i4"), np.arange(3, dtype="<f8"), np.array([1], dtype=np.longlong), np.array([True, False])),
            *(np.array(["a", "bcd", ""]), np.array([b"a", b"\0b"]), np.array(["2020-01-01", "NaT"], "M8[D]"), np.array([1], "m8[7ms]")),
            *([1, np.int64(2)], {"a": [np.arange(2)]}, (np.float64(1), b"x", [np.array(1)]), np.zeros((1,) * 20)),
        ]
        frozen = np.arange(3)
        frozen.flags.writeable = False
        values.append(frozen)
    return values


def refused() -> List[Tuple[Any, str]]:
    """Values that cannot be sent, and how the part is named."""
    values: List[Tuple[Any, str]] = [
        ({1, 2}, "a set"),
        (frozenset(), "a frozenset"),
        ({1: 2}, "a dict with the key 1, which is no text"),
        ({"1": 1, 1: 2}, "a dict with the key 1, which is no text"),
        ({None: 1}, "a dict with the key None, which is no text"),
        ({Name("a"): 1}, "a dict with the key 'a', which is more than text"),
        ([{"a": {2: 3}}], "a list with a dict at [0]['a'] that has the key 2, which is no text"),
        (Level.HIGH, "a values.Level, which is more than an int"),
        ([1, Level.HIGH], "a list with a values.Level, which is more than an int at [1]"),
        (collections.Counter("aab"), "a collections.Counter, which is more than a dict"),
        (collections.OrderedDict(a=1), "a collections.OrderedDict, which is more than a dict"),
        (collections.defaultdict(int), "a collections.defaultdict, which is more than a dict"),
        (Point(1, 2), "a values.Point, which is more than a tuple"),
        ({"k": (1, Name("a"))}, "a dict with a values.Name, which is more than a str at ['k'][1]"),
        (Length(1.0), "a values.Length, which is more than a float"),
        (Rows([1]), "a values.Rows, which is more than a list"),
        ((b"x", memoryview(b"a")), "a tuple with a memoryview at [1]"),
        (decimal.Decimal(1), "a decimal.Decimal"),
        (fractions.Fraction(1, 2), "a fractions.Fraction"),
        (datetime.date(2020, 1, 1), "a datetime.date"),
        ([pathlib.PurePosixPath("a")], "a list with a pathlib"),
        (range(3), "a range"),
        (object(), "an object"),
        (print, "a builtin_function_or_method"),
    ]
    if np is not None:
        masked = np.ma.array([1.0, 1e9], mask=[False, True])
        records = np.zeros(2, dtype="i4,f8")
        values += [
            (masked, "MaskedArray, which is more than a numpy.ndarray"),
            ([0, {"a": masked}], "MaskedArray, which is more than a numpy.ndarray at [1]['a']"),
            (np.ma.masked, "MaskedConstant, which is more than a numpy.ndarray"),
            (np.ma.array([1]), "MaskedArray, which is more than"),
            (np.array([1]).view(np.recarray), "recarray, which is more than"),
            (records, "an array of [('f0', '<i4'), ('f1', '<f8')]"),
            (records[0], "a numpy.void"),
            (np.array([object()]), "an array of object"),
            ([np.array([None, 1])], "a list with an array of object at [0]"),
            (np.longdouble(1), "a numpy.longdouble"),
            (np.zeros(2, "g"), "an array of "),
            (np.str_("a\0"), "a numpy.str_ that ends in a zero"),
            (np.zeros(2, np.dtype("i4", metadata={"unit": "m"})), "an array of int32 with metadata"),
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values.append((np.asmatrix([[1, 2]]), "a numpy.matrix, which is more than a numpy.ndarray"))
    if pd is not None:
        values += [
            (pd.Series([1]), "Series"),
            (pd.DataFrame({"a": [1]}), "DataFrame"),
            ([pd.Timestamp(0)], "Timestamp"),
            ({"a": pd.NA}, "NAType at ['a']"),
            (pd.Index([1]), "Index"),
        ]
    return values


def made(source: random.Random, depth: int = 4) -> Any:
    """A random value that can be sent."""
    leaves = whole()
    kind = source.randrange(6) if depth else 0
    if kind < 2:
        return source.choice(leaves)
    parts = [made(source, depth - 1) for _ in range(source.randrange(4))]
    if kind < 4:
        return parts
    return tuple(parts) if kind == 4 else {f"key {number}": part for number, part in enumerate(parts)}


def same(one: Any, other: Any) -> bool:
    """Equal in value and in the type of each part."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if np is not None and isinstance(one, np.ndarray):
        bare = one.dtype == other.dtype and one.shape == other.shape
        return bare and bool(np.array_equal(one.tobytes(), other.tobytes()))
    if np is not None and isinstance(one, np.generic):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    if isinstance(one, (float, complex)):
        return repr(one) == repr(other)
    return bool(one == other)


def shown(value: Any) -> str:
    """The begin of how Python writes it, if it can: it does not write long integers."""
    try:
        return repr(value)[:80]
    except ValueError:
        return f"a {type(value).__name__} that is too long to be shown"
