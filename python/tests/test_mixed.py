"""Python's ranks and Rust's in one job: Rust's are packs of a local Lambda, Python's run in this process."""

from __future__ import annotations

import json
import os
import subprocess
import time
import unittest
import urllib.request
from pathlib import Path
from typing import Any, Callable, List, Tuple

from support import PATIENCE_S, OnASwitch, in_threads, pack_code

from lswitch import event as events
from lswitch.comm import Comm
from lswitch.errors import ConnectionLostError
from lswitch.job import Job

PROGRAMS = os.environ.get("LSWITCH_PROGRAMS", "")


@unittest.skipUnless(
    PROGRAMS and os.environ.get("LSWITCH"), "set LSWITCH, and LSWITCH_PROGRAMS to the binary of examples/programs"
)
class Mixed(OnASwitch):
    COUNT = 2

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.local = subprocess.Popen(
            [PROGRAMS, "local", "--listen", "127.0.0.1:0", "--json", "--quiet"],
            stdout=subprocess.PIPE,
            env={**os.environ, "LSWITCH_HOME": cls.switches[0].home},
            text=True,
        )
        assert cls.local.stdout is not None
        cls.endpoint = json.loads(cls.local.stdout.readline())["endpoint"]

    @classmethod
    def tearDownClass(cls) -> None:
        cls.local.terminate()
        cls.local.wait()
        assert cls.local.stdout is not None
        cls.local.stdout.close()
        super().tearDownClass()

    def mix(self, packs: List[Tuple[int, bool]], name: str, arguments: Any, python: Callable[[Job], Any]) -> Any:
        """Runs packs of (ranks, is it Rust?) and gives the results by rank."""
        size = sum(ranks for ranks, _ in packs)
        driver = self.drive(size)

        def act(number: int) -> None:
            ranks, is_rust = packs[number]
            first = sum(before for before, _ in packs[:number])
            code = pack_code(driver.key, first, ranks, 1, driver.expiry).hex()
            token = {"expiry_s": driver.expiry, "code": code}
            event = driver.event(first, ranks=ranks, token=token, program=name, arguments=arguments)
            if is_rust:
                url = f"{self.endpoint}/2015-03-31/functions/lswitch/invocations"
                with urllib.request.urlopen(urllib.request.Request(url, json.dumps(event).encode()), timeout=50) as answer:
                    self.assertNotIn("x-amz-function-error", answer.headers, answer.read())
                return
            with Comm.join(events.parse(event), time.monotonic() + PATIENCE_S - 5) as comm:
                comm.result(json.dumps(python(Job(comm))).encode())

        in_threads(len(packs), act)
        driver.close()
        if name == "ring":
            return driver.results
        return {rank: json.loads(result) for rank, result in driver.results.items()}

    def test_a_counter_and_a_sum(self) -> None:
        def python(job: Job) -> Any:
            batches = 0
            while job.counter("next batch").add() <= 20:
                batches += 1
            sums = job.allreduce([0, batches], dtype="u64")
            return {"sums": sums, "batches": batches}

        found = self.mix([(2, True), (1, False), (3, True)], "monte-carlo", {"batches": 20, "darts": 100}, python)
        self.assertEqual(sum(one["batches"] for one in found.values()), 20)
        self.assertEqual(found[2]["sums"][1], 20)
        self.assertEqual(len({one["pi"] for rank, one in found.items() if rank != 2}), 1)

    def test_all_to_all(self) -> None:
        text = Path(self.switches[0].home, "text")
        text.write_text("one line of words\n" * 100)

        def python(job: Job) -> Any:
            # This rank's share of the text is not read: it gives five of a word of its own to each.
            pieces = [json.dumps({f"python{rank}": 5}).encode() for rank in job.peers]
            own: dict = {}
            for piece in job.collectives.alltoall(pieces):
                for word, count in json.loads(piece).items():
                    own[word] = own.get(word, 0) + count
            return {"own": own}

        arguments = {"text": str(text), "top": 10}
        found = self.mix([(1, False), (2, True), (1, True)], "word-count", arguments, python)
        for rank in (1, 2, 3):
            self.assertIn([f"python{rank}", 5], found[rank]["top"])
        words = sum(found[rank]["words"] - 5 for rank in (1, 2, 3))
        own = found[0]["own"]
        words += sum(own.values()) - own["python0"]
        self.assertEqual(words, 300)

    def test_other_calls_in_rust_than_in_python_end_the_job_with_both_named(self) -> None:
        text = Path(self.switches[0].home, "short text")
        text.write_text("one line of words\n")

        def python(job: Job) -> Any:
            job.collectives.gather(b"mine", root=1)
            job.barrier()

        with self.assertRaises(ConnectionLostError) as caught:
            self.mix([(1, False), (1, True)], "word-count", {"text": str(text), "top": 10}, python)
        self.assertIn("gather to rank 1", str(caught.exception))
        self.assertIn("all-to-all", str(caught.exception))

    def test_a_vector_that_all_add_to(self) -> None:
        def python(job: Job) -> Any:
            vector = job.vector("weights")
            vector.create(8)
            for _ in range(20):
                pulled = vector.pull(8)
                assert pulled is not None
                vector.add([0.0] * 8)
            job.barrier()
            pulled = vector.pull(8)
            assert pulled is not None
            return {"weights": list(pulled.values)}

        found = self.mix([(1, True), (1, False), (2, True)], "parameter-server", {"rounds": 20}, python)
        self.assertEqual(len({json.dumps(one["weights"]) for one in found.values()}), 1)

    def test_a_ring(self) -> None:
        def python(job: Job) -> Any:
            token = job.comm.receive(job.rank - 1).data
            job.comm.send((job.rank + 1) % job.size, token + b" %d" % job.rank)
            return None

        found = self.mix([(2, True), (1, False), (1, True)], "ring", None, python)
        self.assertEqual(found[0], b"0 1 2 3")


if __name__ == "__main__":
    unittest.main()
