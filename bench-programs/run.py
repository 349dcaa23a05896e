"""Programs on lswitch beside others: calls of functions, word count, map-reduce of Python programs, sort. In turns, since machines are noisy; ratios are
within a round, and their medians count. It ends with a line for each target.

    cargo build --release && cargo build --release -p lswitch-bench-programs
    pip install polars duckdb 'dask[distributed]' ray cloudpickle
    python3 bench-programs/run.py [--rounds 5] [--only wordcount,mapreduce,sort,calls] [--data ../shared/data]

What is not installed is left out, and said so. GNU sort is the system's.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python" / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

CALLS = 10_000
WORKERS = 4

#: Name, what was measured (none if it was not), the bound, and whether more is better.
Target = Tuple[str, Optional[float], float, bool]


def has(module: str) -> bool:
    if importlib.util.find_spec(module) is not None:
        return True
    print(f"left out: {module} is not installed", file=sys.stderr)
    return False


def timed(command: Sequence[str], **more: object) -> float:
    """Seconds that a command takes, which must succeed."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)  # type: ignore[call-overload]
    return time.perf_counter() - begun


def rounds(count: int, cases: Dict[str, Callable[[], float]]) -> Dict[str, List[float]]:
    """Each case once a round, beginning with another one each time."""
    names = list(cases)
    found: Dict[str, List[float]] = {name: [] for name in names}
    for number in range(count):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(cases[name]())
    for name in names:
        print(f"  {name:40} median {statistics.median(found[name]):8.4f} s  {[round(s, 4) for s in found[name]]}", flush=True)
    return found


def ratio(found: Dict[str, List[float]], name: str, to: str) -> Optional[float]:
    if name not in found or to not in found:
        return None
    return statistics.median(a / b for a, b in zip(found[name], found[to]))


def resident(pid: int) -> Tuple[int, int]:
    """KiB of memory that a process and those that it started take now, all of them and the largest that it started."""
    total, largest = 0, 0
    waiting = [pid]
    while waiting:
        process = waiting.pop()
        try:
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
                    if process != pid:
                        largest = max(largest, int(line.split()[1]))
            for task in Path(f"/proc/{process}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:
            pass
    return total, largest


def write_texts(arguments: argparse.Namespace, inputs: Path) -> None:
    """330 MB in 100 files."""
    texts = sorted((arguments.data / "text").glob("*.txt"))
    whole = b"".join(text.read_bytes() for text in texts)
    inputs.mkdir()
    for number in range(100):
        (inputs / f"{number:02}.txt").write_bytes(whole)


MAPPER = """#!/usr/bin/env python3
import collections, re, sys
find = re.compile("[a-z]+").findall
counts = collections.Counter()
for line in sys.stdin:
    counts.update(find(line.lower()))
for word, count in counts.items():
    print(word, count, sep="\\t")
"""

REDUCER = """#!/usr/bin/env python3
import itertools, sys
pairs = (line.rstrip("\\n").split("\\t") for line in sys.stdin)
for word, same in itertools.groupby(pairs, key=lambda pair: pair[0]):
    print(word, sum(int(count) for _, count in same), sep="\\t")
"""

#: How people write it, and how it is written with what the mapper above does in each partition.
BAG = """
import collections, re, sys
import dask.bag
find = re.compile("[a-z]+").findall
def count(lines):
    counts = collections.Counter()
    for line in lines:
        counts.update(find(line.lower()))
    return [counts]
def words(line):
    return find(line.lower())
if __name__ == "__main__":
    lines = dask.bag.read_text(sys.argv[1] + "/*.txt", files_per_partition=10)
    if sys.argv[3] == "frequencies":
        found = lines.map(words).flatten().frequencies().compute(scheduler="processes", num_workers=2)
    else:
        found = lines.map_partitions(count).fold(lambda a, b: a + b).compute(scheduler="processes", num_workers=2).items()
    with open(sys.argv[2], "w") as out:
        out.writelines(f"{word}\\t{count}\\n" for word, count in sorted(found))
"""


def mapreduce(arguments: argparse.Namespace, folder: Path) -> List[Target]:
    inputs = folder / "texts"
    write_texts(arguments, inputs)
    for name, text in (("mapper", MAPPER), ("reducer", REDUCER), ("bag.py", BAG)):
        (folder / name).write_text(text.replace("/usr/bin/env python3", sys.executable, 1))
        (folder / name).chmod(0o755)
    ours = [arguments.lswitch, "invoke", "map", "--exec", "./mapper", "--items", f"{inputs}/*.txt", "--batch-size", "10", "--reduce", "./reducer"]
    ours += ["--workers", "2", "--output", "ours", "--overwrite", "-q"]
    cases: Dict[str, Callable[[], float]] = {"lswitch map --reduce": lambda: timed(ours, cwd=folder)}
    names = {"frequencies": "dask bag, frequencies", "counters": "dask bag, a counter a partition"}
    if has("dask"):
        for kind, name in names.items():
            bag = [sys.executable, "bag.py", str(inputs), f"{kind}.tsv", kind]
            cases[name] = lambda bag=bag: timed(bag, cwd=folder)  # type: ignore[misc]
    print("word count by Python programs, 330 MB, 2 workers")
    found = rounds(arguments.rounds, cases)
    counted = "".join(part.read_text() for part in sorted((folder / "ours").glob("part-*.txt")))
    for kind, name in names.items():
        assert name not in cases or (folder / f"{kind}.tsv").read_text() == counted, name
    return [
        ("Python mapper: dask bag's time over ours", ratio(found, names["frequencies"], "lswitch map --reduce"), 1.25, True),
        ("Python mapper: bag with counters over ours", ratio(found, names["counters"], "lswitch map --reduce"), 1.25, True),
    ]


def wordcount(arguments: argparse.Namespace, folder: Path) -> List[Target]:
    inputs = folder / "texts"
    write_texts(arguments, inputs)
    files = [str(file) for file in sorted(inputs.iterdir())]
    lswitch = [arguments.lswitch, "invoke", "wordcount", "--input", str(inputs), "--workers", "2", "-q"]
    floor = [str(Path(arguments.lswitch).with_name("lswitch-bench-programs")), *files]
    cases: Dict[str, Callable[[], float]] = {
        "lswitch wordcount": lambda: timed(lswitch, cwd=folder),
        "plain Rust, 2 threads": lambda: timed(floor),
    }
    if has("polars"):
        script = (
            "import polars as pl, sys\n"
            f"lines = pl.scan_csv('{inputs}/*.txt', has_header=False, separator='\\x01', quote_char=None, new_columns=['l'])\n"
            "words = lines.select(pl.col('l').str.to_lowercase().str.extract_all('[a-z]+').alias('w')).explode('w').drop_nulls()\n"
            "words.group_by('w').len().sort('w').collect(engine='streaming').write_csv(sys.argv[1], separator='\\t', include_header=False)\n"
        )
        environment = {**os.environ, "POLARS_MAX_THREADS": "2"}
        polars = [sys.executable, "-c", script, str(folder / "polars.tsv")]
        cases["polars, streaming"] = lambda: timed(polars, env=environment)
    print("word count, 330 MB, 2 workers")
    found = rounds(arguments.rounds, cases)
    return [
        ("word count: polars' time over ours", ratio(found, "polars, streaming", "lswitch wordcount"), 3.8, True),
        ("word count: ours over a plain Rust loop", ratio(found, "lswitch wordcount", "plain Rust, 2 threads"), 1.25, False),
    ]


def sort(arguments: argparse.Namespace, folder: Path) -> List[Target]:
    records, ours, theirs = folder / "records", folder / "sorted", folder / "sorted.txt"
    subprocess.run([arguments.lswitch, "generate", "records", "--count", "10737418", "--out", str(records), "-q"], check=True)
    base = [arguments.lswitch, "invoke", "sort", "--input", str(records), "--output", str(ours), "--overwrite", "--workers", "2", "-q"]
    system = {**os.environ, "LC_ALL": "C"}
    # 256 MiB for both; each sorts 4 times of it.
    limit = 128
    peaks: List[Tuple[int, int]] = []

    def bounded() -> float:
        begun = time.perf_counter()
        process = subprocess.Popen([*base, "--memory", f"{limit}MiB"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        all_of_them, worker = 0, 0
        while process.poll() is None:
            now = resident(process.pid)
            all_of_them, worker = max(all_of_them, now[0]), max(worker, now[1])
            time.sleep(0.01)
        assert process.returncode == 0
        peaks.append((all_of_them, worker))
        return time.perf_counter() - begun

    cases: Dict[str, Callable[[], float]] = {
        "lswitch sort": lambda: timed(base, cwd=folder),
        "sort --parallel=2 -S 4G": lambda: timed(["sort", "--parallel=2", "-S", "4G", str(records), "-o", str(theirs)], env=system),
        "lswitch sort, 256 MiB in all": bounded,
        "sort --parallel=2 -S 256M": lambda: timed(["sort", "--parallel=2", "-S", "256M", "-T", str(folder), str(records), "-o", str(theirs)], env=system),
    }
    if has("duckdb"):
        script = (
            "import duckdb, sys\n"
            "base = duckdb.connect(); base.execute('set threads=2'); base.execute('set preserve_insertion_order=false')\n"
            "base.execute(\"copy (select l from read_csv(?, columns={'l':'varchar'}, header=false, delim='\\x01', quote='', escape='', auto_detect=false) "
            "order by l[1:10]) to '\" + sys.argv[2] + \"' (header false, quote '', delimiter '\\x01', format csv)\", [sys.argv[1]])\n"
        )
        cases["duckdb, 2 threads"] = lambda: timed([sys.executable, "-c", script, str(records), str(folder / "duckdb.txt")])
    print("sort, 1 GiB of gensort's lines, 2 workers")
    found = rounds(arguments.rounds, cases)
    subprocess.run([arguments.lswitch, "check", "sort", str(ours), "--with", str(records), "-q"], check=True, stdout=subprocess.DEVNULL)
    peak, worker = (max(column) / 1024 for column in zip(*peaks))
    print(f"  most memory with 256 MiB, of all processes and of a worker: {[(round(a / 1024), round(b / 1024)) for a, b in peaks]} MiB")
    return [
        ("sort: ours over GNU sort -S 4G", ratio(found, "lswitch sort", "sort --parallel=2 -S 4G"), 0.5, False),
        ("sort: ours over duckdb", ratio(found, "lswitch sort", "duckdb, 2 threads"), 0.9, False),
        ("sort, 256 MiB: ours over GNU sort -S 256M", ratio(found, "lswitch sort, 256 MiB in all", "sort --parallel=2 -S 256M"), 0.7, False),
        ("sort, 256 MiB: MiB of all processes", peak, 300, False),
        ("sort of 4x a worker's memory: MiB of the worker", worker, limit, False),
    ]


def nothing() -> None:
    """What is called."""


def submitted(executor: concurrent.futures.Executor) -> float:
    begun = time.perf_counter()
    for future in [executor.submit(nothing) for _ in range(CALLS)]:
        future.result()
    return time.perf_counter() - begun


def latency(executor: concurrent.futures.Executor, count: int = 500) -> float:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        executor.submit(nothing).result()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def same(item: int) -> int:
    return item


class RustCalls:
    """A pool in Rust, which measures what it is told to and answers with seconds."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        binary = str(Path(arguments.lswitch).with_name("lswitch-bench-calls"))
        command = [binary, str(WORKERS), str(CALLS)]
        self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, what: str) -> float:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(60) == 0


def round_trip(arguments: argparse.Namespace, folder: Path) -> float:
    """Seconds of the median round trip of 64 bytes between two ranks, through the switch and back."""
    command = [arguments.lswitch, "bench", "pair", "--json", "-q", "--seconds", "0.5"]
    output = subprocess.run(command, check=True, cwd=folder, stdout=subprocess.PIPE).stdout
    return float(json.loads(output)["latency"]["p50_us"]) / 1e6


def calls(arguments: argparse.Namespace, folder: Path) -> List[Target]:
    import lswitch
    from run import nothing as call, same as identity  # by its module's name, which workers can import

    globals()["nothing"], globals()["same"] = call, identity
    environment = {"LSWITCH_STORE": str(folder / "store")}
    ours = lswitch.Executor(WORKERS, binary=arguments.lswitch, env={**os.environ, **environment})
    pool = concurrent.futures.ProcessPoolExecutor(WORKERS)
    rust = RustCalls(arguments, folder)

    def mapped() -> float:
        begun = time.perf_counter()
        assert sum(ours.map(identity, range(CALLS))) == CALLS * (CALLS - 1) // 2
        return time.perf_counter() - begun

    cases: Dict[str, Callable[[], float]] = {
        "lswitch submit": lambda: submitted(ours),
        "lswitch map": mapped,
        "ProcessPoolExecutor submit": lambda: submitted(pool),
        "lswitch, one call": lambda: latency(ours),
        "ProcessPoolExecutor, one call": lambda: latency(pool),
        "Rust, submit": lambda: rust("submit"),
        "Rust, map": lambda: rust("map"),
        "Rust, one call": lambda: rust("one"),
        "64 B to a rank and back": lambda: round_trip(arguments, folder),
    }
    for warm in cases.values():
        warm()
    print(f"{CALLS} calls of a function that does nothing, in Python and in Rust, {WORKERS} workers")
    found = rounds(arguments.rounds, cases)
    pool.shutdown()
    rust.close()
    # Others' servers are there only while they are measured, so that they disturb nobody else.
    others: Dict[str, Optional[float]] = {"ray": None, "dask distributed": None}
    if has("ray"):
        import ray

        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        remote = ray.remote(nothing)

        def on_ray() -> float:
            begun = time.perf_counter()
            ray.get([remote.remote() for _ in range(CALLS)])
            return time.perf_counter() - begun

        on_ray()
        beside = rounds(2, {"ray": on_ray, "lswitch submit": lambda: submitted(ours)})
        others["ray"] = ratio(beside, "ray", "lswitch submit")
        ray.shutdown()
    if has("distributed"):
        from distributed import Client, LocalCluster

        with LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:

            def on_dask() -> float:
                begun = time.perf_counter()
                client.gather(client.map(same, range(CALLS), pure=False))
                return time.perf_counter() - begun

            on_dask()
            beside = rounds(2, {"dask distributed": on_dask, "lswitch submit": lambda: submitted(ours)})
            others["dask distributed"] = ratio(beside, "dask distributed", "lswitch submit")
    ours.shutdown()
    return [
        ("calls: ours over ProcessPoolExecutor's, per second", ratio(found, "ProcessPoolExecutor submit", "lswitch submit"), 4, True),
        ("calls: over ray's", others["ray"], 25, True),
        ("calls: over dask distributed's", others["dask distributed"], 50, True),
        ("calls in batches: over ProcessPoolExecutor's", ratio(found, "ProcessPoolExecutor submit", "lswitch map"), 20, True),
        ("one call: our median over ProcessPoolExecutor's", ratio(found, "lswitch, one call", "ProcessPoolExecutor, one call"), 0.6, False),
        ("calls: Rust's over Python's, per second", ratio(found, "lswitch submit", "Rust, submit"), 2, True),
        ("calls in batches: Rust's over Python's", ratio(found, "lswitch map", "Rust, map"), 2, True),
        ("one call in Rust: median over the round trip of 64 B", ratio(found, "Rust, one call", "64 B to a rank and back"), 2, False),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="wordcount,mapreduce,sort,calls")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LSWITCH_DATA", ROOT.parent / "shared" / "data")))
    parser.add_argument("--lswitch", default=str(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "lswitch"))
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    arguments.lswitch = str(Path(arguments.lswitch).resolve())
    parts = {"wordcount": wordcount, "mapreduce": mapreduce, "sort": sort, "calls": calls}
    targets: List[Target] = []
    for name in arguments.only.split(","):
        folder = Path(tempfile.mkdtemp(prefix="lswitch-bench-"))
        try:
            targets += parts[name](arguments, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print()
    for name, measured, bound, more in targets:
        if measured is None:
            print(f"{name:52} {'-':>8}  bound {bound:<6} not measured")
            continue
        good = measured >= bound if more else measured <= bound
        print(f"{name:52} {measured:8.2f}  bound {bound:<6} {'ok' if good else 'short'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(targets, indent=1))


if __name__ == "__main__":
    main()
