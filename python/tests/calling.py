"""Functions that the tests of the executor call."""

from __future__ import annotations

import collections
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


def add(one: Any, other: Any = 1, *, third: Any = 0) -> Any:
    return one + other + third


def square(number: int) -> int:
    return number * number


def same(value: Any) -> Any:
    return value


def counted(text: str) -> Any:
    return [text, collections.Counter(text)]


def nothing() -> None:
    pass


def pair(one: Any, other: Any) -> Any:
    return [one, other]


def fail(words: str) -> None:
    raise ValueError(words)


def odd(number: int) -> int:
    if number % 2 == 0:
        raise KeyError(number)
    return number


def count_and_fail(folder: str) -> None:
    tempfile.mkstemp(dir=folder)
    raise ValueError("each time")


class OwnError(Exception):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} at {where}")
        self.where = where


def fail_in_my_own_way() -> None:
    raise OwnError("broken", "home")


def leave() -> None:
    sys.exit(3)


def long(count: int) -> bytes:
    return b"x" * count


def rest(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


def process(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()


def rank() -> str:
    """This worker's, by a thread of it."""
    return next(thread.name for thread in threading.enumerate() if "keeper" in thread.name)


def die_once(folder: str, value: Any) -> Any:
    """Ends its worker the first time."""
    mark = Path(folder, f"died-{value}")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def die(_: Any = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(number: int) -> int:
    if number == 7:
        die()
    return number


def variable(name: str) -> Any:
    return os.environ.get(name)


def folder() -> str:
    return os.getcwd()


def a_set(*values: Any) -> Any:
    return set(values)


class Adder:
    """Something that can be called, and pickled."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, number: int) -> int:
        return number + self.amount

    @staticmethod
    def twice(number: int) -> int:
        return 2 * number
