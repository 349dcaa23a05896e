"""Collectives and the shared state, against what they should be, over one switch and over several."""

from __future__ import annotations

import enum
import itertools
import time
import unittest
from typing import Any, Callable, Dict, List

from support import NEEDS_BINARY, PATIENCE_S, OnASwitch, in_threads

import lswitch
from lswitch import event as events
from lswitch.comm import Comm
from lswitch.errors import ConnectionLostError, StateError, UsageError

try:
    import numpy as np
except ImportError:
    np = None  # type: ignore[assignment]


class Level(enum.IntEnum):
    HIGH = 3


#: What a rank calls, by what the others are told of it.
CALLS: Dict[str, Callable[[lswitch.Job], Any]] = {
    "barrier": lambda job: job.barrier(),
    "broadcast from rank 0": lambda job: job.broadcast("x", root=0),
    "broadcast from rank 1": lambda job: job.broadcast("x", root=1),
    "sum of 1 i64 to all ranks": lambda job: job.allreduce(1),
    "maximum of 1 i64 to all ranks": lambda job: job.allreduce(1, "max"),
    "sum of 1 f64 to all ranks": lambda job: job.allreduce(1.0),
    "sum of 2 i64 to all ranks": lambda job: job.allreduce([1, 2]),
    "sum of 1 i64 to rank 0": lambda job: job.reduce(1, root=0),
    "sum of 1 i64 to rank 1": lambda job: job.reduce(1, root=1),
    "gather to rank 0": lambda job: job.gather("x", root=0),
    "gather to rank 1": lambda job: job.gather("x", root=1),
    "all-gather": lambda job: job.allgather("x"),
    "scatter from rank 0": lambda job: job.scatter(["A", "B"], root=0),
    "scatter from rank 1": lambda job: job.scatter(["A", "B"], root=1),
    "all-to-all": lambda job: job.alltoall(["A", "B"]),
    "reduce by a function to rank 0": lambda job: job.reduce("x", lambda one, other: one, root=0),
    "reduce by a function to rank 1": lambda job: job.reduce("x", lambda one, other: one, root=1),
    "all-reduce by a function": lambda job: job.allreduce("x", lambda one, other: one),
}


def ended_by(test: Any, calls: List[Callable[[lswitch.Job], Any]]) -> List[str]:
    """What the ranks of a job are told whose calls differ, at the latest when they leave; those that had left before are told nothing."""
    driver = test.drive(len(calls))
    errors: List[str] = []

    def rank(number: int) -> None:
        try:
            with Comm.join(events.parse(driver.event(number)), time.monotonic() + PATIENCE_S - 5) as comm:
                calls[number](lswitch.Job(comm))
        except ConnectionLostError as error:
            errors.append(str(error))

    begun = time.monotonic()
    in_threads(len(calls), rank)
    test.assertLess(time.monotonic() - begun, 10)
    test.assertTrue(errors)
    return errors


class Calls:
    """The same on any number of switches."""

    def test_sums_minima_and_maxima_of_numbers_and_lists(self) -> None:
        def program(job: lswitch.Job) -> object:
            rank = job.rank
            return (
                job.allreduce(rank),
                job.allreduce([0.5, float(rank)], "max"),
                job.allreduce([rank, -rank], "min"),
                job.reduce([1, 2], "sum", root=2, dtype="u64"),
                job.allreduce([rank], "sum", dtype="f32"),
            )

        found = self.run_ranks(4, program)  # type: ignore[attr-defined]
        for rank, one in enumerate(found):
            self.assertEqual(one, (6, [0.5, 3.0], [0, -3], [4, 8] if rank == 2 else None, [6.0]))  # type: ignore[attr-defined]

    @unittest.skipIf(np is None, "NumPy is not installed")
    def test_arrays_longer_than_many_segments(self) -> None:
        def program(job: lswitch.Job) -> object:
            values = np.arange(200_000.0).reshape(2, -1) * (job.rank + 1)
            found = job.allreduce(values)
            assert found.shape == values.shape and found.dtype == values.dtype
            assert (found == np.arange(200_000.0).reshape(2, -1) * 6).all()
            small = job.allreduce(np.arange(10, dtype="u8"), "max")
            assert small.dtype == np.dtype("u8") and (small == np.arange(10)).all()
            return float(job.allreduce(np.float64(0.5)))

        self.assertEqual(self.run_ranks(3, program), [1.5] * 3)  # type: ignore[attr-defined]

    def test_broadcasts_of_all_lengths_from_each_root(self) -> None:
        def program(job: lswitch.Job) -> None:
            for root in job.peers:
                for length in (0, 1, 65535, 65536, 700_000):
                    given = bytes([root]) * length if job.rank == root else None
                    assert job.collectives.broadcast(given, root) == bytes([root]) * length
            assert job.broadcast({"a": [1]} if job.rank == 1 else None, root=1) == {"a": [1]}

        self.run_ranks(3, program)  # type: ignore[attr-defined]

    def test_gather_scatter_and_all_to_all(self) -> None:
        def program(job: lswitch.Job) -> None:
            rank, size = job.rank, job.size
            due = [[number] * number for number in range(size)]
            found = job.gather([rank] * rank, root=1)
            assert found == (due if rank == 1 else None), found
            assert job.allgather([rank] * rank) == due
            assert job.scatter([f"for {to}" for to in job.peers] if rank == 2 else None, root=2) == f"for {rank}"
            pieces = [bytes([rank, to]) * 50_000 for to in job.peers]
            assert job.alltoall(pieces) == [bytes([source, rank]) * 50_000 for source in job.peers]

        self.run_ranks(4, program)  # type: ignore[attr-defined]

    def test_an_exchange_larger_than_all_mailboxes_completes(self) -> None:
        def program(job: lswitch.Job) -> None:
            for _ in range(3):
                pieces = [bytes([job.rank]) * 100_000 for _ in job.peers]
                assert job.collectives.alltoall(pieces) == [bytes([source]) * 100_000 for source in job.peers]

        self.run_ranks(4, program, mailbox=4096)  # type: ignore[attr-defined]

    def test_functions_combine_in_the_order_of_ranks(self) -> None:
        def program(job: lswitch.Job) -> object:
            return job.allreduce([job.rank], lambda a, b: a + b), job.reduce(str(job.rank), lambda a, b: a + b, root=1)

        self.assertEqual(  # type: ignore[attr-defined]
            self.run_ranks(3, program), [([0, 1, 2], None), ([0, 1, 2], "012"), ([0, 1, 2], None)]  # type: ignore[attr-defined]
        )

    def test_messages_and_collectives_do_not_mix(self) -> None:
        def program(job: lswitch.Job) -> object:
            other = (job.rank + 1) % job.size
            job.send(other, "mine")
            job.barrier()
            job.alltoall([0] * job.size)
            return job.receive().data

        self.assertEqual(self.run_ranks(3, program), ["mine"] * 3)  # type: ignore[attr-defined]

    def test_counters_queues_and_vectors(self) -> None:
        def program(job: lswitch.Job) -> object:
            seen = [job.counter("tasks").add() for _ in range(10)]
            job.barrier()
            assert job.counter("tasks").get() == 30
            if job.rank == 0:
                assert job.counter("c").compare_and_set(0, 5) == (True, 5)
                assert job.counter("c").compare_and_set(0, 7) == (False, 5)
                assert job.queue("work").push(*[b"%d" % number for number in range(20)]) == 20
                job.queue("work").close()
                assert job.vector("v").create(20_000) >= 1
            job.barrier()
            items = []
            while True:
                try:
                    items.append(job.queue("work").pop(1.0))
                except lswitch.Closed:
                    break
            vector = job.vector("v")
            vector.add([1.0] * 20_000)
            vector.add_sparse([3, 19_999, 3], [1.0, 2.0, 4.0])
            job.barrier()
            pulled = vector.pull(20_000)
            assert pulled is not None
            assert list(pulled.values[:5]) == [3.0, 3.0, 3.0, 18.0, 3.0] and pulled.values[19_999] == 9.0
            assert vector.length() == 20_000
            job.barrier()
            assert vector.pull(1, newer_than=pulled.version) is None
            return seen, items

        found = self.run_ranks(3, program)  # type: ignore[attr-defined]
        self.assertEqual(sorted(number for seen, _ in found for number in seen), list(range(1, 31)))  # type: ignore[attr-defined]
        self.assertEqual(sorted(int(item) for _, items in found for item in items), list(range(20)))  # type: ignore[attr-defined]


@NEEDS_BINARY
class OneSwitch(Calls, OnASwitch):
    def test_a_job_of_one_rank_makes_all_calls(self) -> None:
        def program(job: lswitch.Job) -> object:
            job.barrier()
            return (job.allreduce([1, 2]), job.broadcast("x"), job.gather(1), job.allgather(2), job.scatter([3]), job.alltoall([4]))

        self.assertEqual(self.run_ranks(1, program), [([1, 2], "x", [1], [2], 3, [4])])

    def test_refusals_of_the_shared_state_have_a_kind(self) -> None:
        def program(job: lswitch.Job) -> None:
            with self.assertRaises(StateError) as caught:
                job.vector("nobody's").pull(1)
            self.assertEqual(caught.exception.kind, "missing")
            job.counter("full").set((1 << 63) - 1)
            with self.assertRaises(StateError) as caught:
                job.counter("full").add(1)
            self.assertEqual(caught.exception.kind, "overflow")
            with self.assertRaisesRegex(UsageError, "send fewer items"):
                job.queue("q").push(bytes(70_000))
            self.assertIsNone(job.queue("q").pop(0.01))
            # The rank goes on.
            self.assertEqual(job.counter("still").add(2), 2)

        self.run_ranks(1, program)

    def test_every_two_calls_that_differ_end_the_job_with_both_named(self) -> None:
        for first, second in itertools.combinations(CALLS, 2):
            errors = ended_by(self, [CALLS[first], CALLS[second]])
            for error in errors:
                self.assertIn(first, error)
                self.assertIn(second, error)

    def test_a_rank_that_makes_a_call_less_ends_the_job(self) -> None:
        for call in ("gather to rank 0", "scatter from rank 0", "all-to-all", "broadcast from rank 0"):

            def calls(job: lswitch.Job) -> None:
                CALLS[call](job)
                # Who only sends would be gone before the job ends.
                job.receive()

            for errors in (ended_by(self, [calls, lambda job: None]), ended_by(self, [lambda job: None, calls])):
                self.assertTrue(any(call in error for error in errors), errors)

    @unittest.skipIf(np is None, "NumPy is not installed")
    def test_arrays_of_other_shapes_types_and_lengths_are_not_combined(self) -> None:
        first = np.zeros((2, 3))
        for second in (np.zeros((3, 2)), np.zeros(6), np.zeros((2, 3), "f4"), np.zeros((2, 3), "i8"), np.zeros((2, 4))):
            for error in ended_by(self, [lambda job: job.allreduce(first), lambda job: job.allreduce(second)]):
                self.assertRegex(error, "calls sum of .* but rank . calls sum of ")

        # Lists have no shape, and are combined with any.
        found = self.run_ranks(2, lambda job: job.allreduce(first + 1 if job.rank else [1.0] * 6))
        self.assertEqual(found[0], [2.0] * 6)
        self.assertEqual(found[1].tolist(), [[2.0] * 3] * 2)

    def test_what_is_more_than_numbers_is_not_folded(self) -> None:
        def program(job: lswitch.Job) -> object:
            values = [{1: 2}, {1, 2}, "12", Level.HIGH, [1, Level.HIGH], [[1]], range(2), None]
            if np is not None:
                values += [np.ma.array([1.0, 1e9], mask=[False, True]), np.asmatrix([[1.0]]), [np.ma.masked], np.array([None])]
            for value in values:
                with self.assertRaises(UsageError, msg=repr(value)):
                    job.allreduce(value)
                with self.assertRaises(UsageError, msg=repr(value)):
                    job.vector("v").set(value)
            return job.allreduce((1, True), "max"), job.allreduce(True)

        self.assertEqual(self.run_ranks(1, program), [((1, 1), 1)])

    def test_ranks_that_only_send_may_be_many_calls_ahead(self) -> None:
        def program(job: lswitch.Job) -> object:
            found = [job.gather((job.rank, number), root=1) for number in range(300)]
            return [one for one in found if one is not None]

        found = self.run_ranks(3, program)
        self.assertEqual(found[1], [[(rank, number) for rank in range(3)] for number in range(300)])
        self.assertEqual((found[0], found[2]), ([], []))

    def test_a_sum_that_does_not_fit_ends_the_job(self) -> None:
        with self.assertRaisesRegex(ConnectionLostError, "the job was ended"):
            self.run_ranks(2, lambda job: job.allreduce([1 << 62]) and job.barrier())


@NEEDS_BINARY
class ThreeSwitches(Calls, OnASwitch):
    COUNT = 3


if __name__ == "__main__":
    unittest.main()
