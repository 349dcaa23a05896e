"""What calls cost: lswitch.Executor beside the process pools of the standard library, in turns, since machines are noisy.

    LSWITCH=target/release/lswitch python3 python/bench/calls.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import Executor as AnyExecutor
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import lswitch  # noqa: E402


def nothing() -> None:
    """What is called."""


def same(item: int) -> int:
    return item


def submit(executor: AnyExecutor, count: int) -> float:
    """Seconds for so many calls, one message each."""
    begun = time.perf_counter()
    for future in [executor.submit(nothing) for _ in range(count)]:
        future.result()
    return time.perf_counter() - begun


def mapped(run: Callable[[], Any], count: int) -> float:
    begun = time.perf_counter()
    found = sum(run())
    assert found == count * (count - 1) // 2
    return time.perf_counter() - begun


def latency(executor: AnyExecutor, count: int) -> float:
    """Seconds of the median of single calls, one after the other."""
    times: List[float] = []
    for _ in range(count):
        begun = time.perf_counter()
        executor.submit(nothing).result()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--workers", type=int, default=4)
    arguments.add_argument("--calls", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=7)
    given = arguments.parse_args()
    count = given.calls
    measured: Dict[str, List[float]] = {}

    def note(name: str, value: float) -> None:
        measured.setdefault(name, []).append(value)

    with lswitch.Executor(given.workers) as own, ProcessPoolExecutor(given.workers) as other, multiprocessing.Pool(
        given.workers
    ) as pool:
        items = range(count)
        for executor in (own, other):
            submit(executor, 1000)
        pool.map(same, items)
        for _ in range(given.rounds):
            note("ppe submit", submit(other, count))
            note("own submit", submit(own, count))
            note("own map", mapped(lambda: own.map(same, items), count))
            note("own map, chunks of 1", mapped(lambda: own.map(same, items, chunksize=1), count))
            note("ppe map, chunks as Pool's", mapped(lambda: other.map(same, items, chunksize=count // given.workers // 4), count))
            note("Pool map", mapped(lambda: pool.map(same, items), count))
            note("ppe one call", latency(other, 300))
            note("own one call", latency(own, 300))
    for name, values in measured.items():
        median = statistics.median(values)
        each = f"{count / median:9.0f} calls/s" if "one call" not in name else f"{median * 1e6:9.1f} us"
        print(f"{name:28} {each}   ({min(values):.4g} to {max(values):.4g} s)")

    def ratio(one: str, other: str) -> str:
        pairs = [a / b for a, b in zip(measured[one], measured[other])]
        return f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"

    print("submit is faster than ProcessPoolExecutor's by", ratio("ppe submit", "own submit"))
    print("map is faster than ProcessPoolExecutor.submit by", ratio("ppe submit", "own map"))
    print("map is faster than Pool.map by", ratio("Pool map", "own map"))
    print("one call takes, of ProcessPoolExecutor's time,", ratio("own one call", "ppe one call"))


if __name__ == "__main__":
    main()
