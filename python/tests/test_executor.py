"""The executor against a real binary: results, errors, futures, lost workers, an end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import importlib.util
import json
import operator
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock
from concurrent.futures import BrokenExecutor, CancelledError
from pathlib import Path
from typing import Any, List

from support import BINARY, NEEDS_BINARY, PATIENCE_S, Switch

import calling
import values
import lswitch
from lswitch import Executor, MessageError, MissingBinaryError, Pool, RemoteError, TooLongError, WorkerLostError
from lswitch.driver import function_file

HAS_NUMPY = importlib.util.find_spec("numpy") is not None
HAS_CLOUDPICKLE = importlib.util.find_spec("cloudpickle") is not None


class Hangs(unittest.TestCase):
    """A test that hangs ends with its name."""

    def setUp(self) -> None:
        def hang(*_: Any) -> None:
            raise AssertionError(f"{self.id()} hangs")

        before = signal.signal(signal.SIGALRM, hang)
        signal.alarm(int(PATIENCE_S))
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        self.addCleanup(signal.alarm, 0)


def died(pid: int) -> bool:
    """Within some time."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@NEEDS_BINARY
class Calls(Hangs):
    """Tests that share an executor."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.executor = Executor(2)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.executor.shutdown()

    def test_a_result(self) -> None:
        submit = self.executor.submit
        self.assertEqual(submit(calling.add, 1).result(20), 2)
        self.assertEqual(submit(calling.add, 1, 2, third=3).result(20), 6)
        self.assertEqual(submit(calling.add, one=1, other=2).result(20), 3)
        self.assertIsNone(submit(calling.nothing).result(20))
        self.assertEqual(submit(calling.Adder.twice, 4).result(20), 8)
        self.assertEqual(submit(operator.mul, 6, 7).result(20), 42)
        self.assertEqual(submit(len, "four").result(20), 4)

    def test_values_come_back_as_they_were_sent(self) -> None:
        values = [
            *(None, True, 0, -1, 2**80, 1.5, float("inf"), "", "text", "\ud800", "ä\n", b"", b"\0\xff", [1, [2, {"a": None}]]),
            {"key": [1.25, "x"]},
            [],
        ]
        for value in values:
            self.assertEqual(self.executor.submit(calling.same, value).result(20), value, value)
        self.assertEqual(list(self.executor.map(calling.same, values)), values)
        self.assertEqual(self.executor.submit(calling.pair, b"x", [1]).result(20), [b"x", [1]])

    def test_values_of_all_kinds_come_whole_or_are_refused_with_their_part(self) -> None:
        whole = values.whole()
        for value, found in zip(whole, self.executor.map(calling.same, whole)):
            self.assertTrue(values.same(found, value), f"{values.shown(value)} came as {values.shown(found)}")
        calls = [self.executor.submit(calling.same, value) for value in whole]
        for value, call in zip(whole, calls):
            self.assertTrue(values.same(call.result(20), value), values.shown(value))
        for value, part in values.refused():
            with self.assertRaises(MessageError) as caught:
                self.executor.submit(calling.pair, 1, value)
            self.assertIn(part, str(caught.exception))
            self.assertIn("(argument 2)", str(caught.exception))

    def test_results_that_cannot_be_sent_are_named_with_their_place(self) -> None:
        for call in (
            lambda: self.executor.submit(calling.counted, "aab").result(20),
            lambda: list(self.executor.map(calling.counted, ["aab"])),
        ):
            with self.assertRaisesRegex(MessageError, r"a list with a collections\.Counter, which is more than a dict at \[1\]"):
                call()

    @unittest.skipUnless(HAS_NUMPY, "NumPy is not installed")
    def test_arrays(self) -> None:
        import numpy

        array = numpy.arange(12.0).reshape(3, 4)
        found = self.executor.submit(calling.add, array, other=array).result(20)
        self.assertTrue((found == 2 * array).all())
        arrays = list(self.executor.map(calling.add, [array, array + 1], [array, array]))
        self.assertTrue((arrays[1] == 2 * array + 1).all())

    def test_an_exception_is_raised_with_the_workers_traceback(self) -> None:
        future = self.executor.submit(calling.fail, "on purpose")
        with self.assertRaisesRegex(ValueError, "on purpose") as caught:
            future.result(20)
        cause = str(caught.exception.__cause__)
        self.assertIn("calling.py", cause)
        self.assertIn("in fail", cause)
        self.assertNotIn("worker.py", cause)
        own = self.executor.submit(calling.fail_in_my_own_way).exception(20)
        assert isinstance(own, RemoteError)
        self.assertEqual((own.type, str(own)), ("calling.OwnError", "calling.OwnError: broken at home"))
        left = self.executor.submit(calling.leave).exception(20)
        self.assertIn("SystemExit: 3", str(left))

    def test_map_keeps_order_for_all_chunks(self) -> None:
        due = [number * number for number in range(1000)]
        for chunksize in (None, 1, 7, 999, 5000):
            self.assertEqual(list(self.executor.map(calling.square, range(1000), chunksize=chunksize)), due)
        self.assertEqual(list(self.executor.map(calling.square, [])), [])
        self.assertEqual(list(self.executor.map(calling.add, range(5), [10, 20, 30])), [10, 21, 32])
        self.assertEqual(list(self.executor.starmap(calling.pair, zip("ab", range(2)))), [["a", 0], ["b", 1]])
        with self.assertRaises(ValueError):
            self.executor.map(calling.square, [1], chunksize=0)

    def test_map_gives_what_came_before_an_error(self) -> None:
        found: List[int] = []
        with self.assertRaisesRegex(KeyError, "6"):
            for value in self.executor.map(calling.odd, [1, 3, 5, 6, 7], chunksize=5):
                found.append(value)
        self.assertEqual(found, [1, 3, 5])

    def test_map_has_a_timeout(self) -> None:
        with self.assertRaises(concurrent.futures.TimeoutError):
            list(self.executor.map(calling.rest, [0.0, 1.0], timeout=0.2, chunksize=1))

    def test_map_reduce(self) -> None:
        items = list(range(1000))
        due = sum(map(calling.square, items))
        self.assertEqual(self.executor.map_reduce(calling.square, items, operator.add), due)
        self.assertEqual(self.executor.map_reduce(calling.square, items, operator.add, 5, chunksize=3), due + 5)
        # Associative, and not commutative.
        self.assertEqual(self.executor.map_reduce(str, items, operator.add, "items "), "items " + "".join(map(str, items)))
        self.assertEqual(self.executor.map_reduce(calling.square, [], operator.add, 9), 9)
        with self.assertRaises(TypeError):
            self.executor.map_reduce(calling.square, [], operator.add)
        with self.assertRaisesRegex(KeyError, "4"):
            self.executor.map_reduce(calling.odd, [1, 4], operator.add)

    def test_futures_are_those_of_the_standard_library(self) -> None:
        futures = [self.executor.submit(calling.rest, 0.05 * number, number) for number in (3, 1, 2)]
        self.assertIsInstance(futures[0], concurrent.futures.Future)
        self.assertEqual({future.result() for future in concurrent.futures.as_completed(futures, 20)}, {1, 2, 3})
        done, not_done = concurrent.futures.wait(futures, 20)
        self.assertEqual((len(done), len(not_done)), (3, 0))
        slow, quick = self.executor.submit(calling.rest, 1.0), self.executor.submit(calling.nothing)
        done, _ = concurrent.futures.wait([slow, quick], 20, concurrent.futures.FIRST_COMPLETED)
        self.assertEqual(done, {quick})
        with self.assertRaises(concurrent.futures.TimeoutError):
            slow.result(0.01)
        self.assertTrue(slow.running())
        told: List[Any] = []
        happened = threading.Event()
        slow.add_done_callback(lambda future: (told.append(future), happened.set()))
        happened.wait(20)
        slow.add_done_callback(told.append)
        self.assertEqual(told, [slow, slow])
        self.assertFalse(slow.cancel())
        self.assertEqual((slow.done(), slow.cancelled(), slow.exception()), (True, False, None))

    def test_futures_can_be_awaited(self) -> None:
        async def run() -> Any:
            loop = asyncio.get_running_loop()
            return await asyncio.gather(*(loop.run_in_executor(self.executor, calling.square, n) for n in range(20)))

        self.assertEqual(asyncio.run(run()), [n * n for n in range(20)])

    def test_polling_a_future_ends(self) -> None:
        for _ in range(20):
            self.executor.submit(calling.nothing).result(20)
        future = self.executor.submit(calling.nothing)
        while not future.done():
            time.sleep(0.001)

    def test_many_threads_call_at_once(self) -> None:
        wrong: List[Any] = []

        def call(thread: int) -> None:
            for number in range(100):
                found = self.executor.submit(calling.add, thread, number).result(20)
                if found != thread + number:
                    wrong.append((thread, number, found))

        threads = [threading.Thread(target=call, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            self.assertFalse(thread.is_alive())
        self.assertEqual(wrong, [])

    def test_thousands_of_calls_at_once(self) -> None:
        futures = [self.executor.submit(calling.square, number) for number in range(20_000)]
        self.assertEqual([future.result(30) for future in futures], [number * number for number in range(20_000)])

    def test_long_arguments_and_results(self) -> None:
        for count in (70_000, 3 << 20, (8 << 20) - 100):
            data = os.urandom(count)
            self.assertEqual(self.executor.submit(calling.same, data).result(30), data)
        self.assertEqual([len(found) for found in self.executor.map(calling.long, [1 << 20] * 20)], [1 << 20] * 20)
        data = bytes(1 << 20)
        self.assertEqual(sum(map(len, self.executor.map(calling.same, [data] * 100))), 100 << 20)

    def test_a_callback_may_submit(self) -> None:
        data = os.urandom(2 << 20)
        found: List[Any] = []
        ended = threading.Semaphore(0)

        def again(future: "concurrent.futures.Future[Any]") -> None:
            found.append(future.result() == data)
            if len(found) < 40:
                self.executor.submit(calling.same, data).add_done_callback(again)
            ended.release()

        for _ in range(8):
            self.executor.submit(calling.same, data).add_done_callback(again)
        for _ in range(40):
            self.assertTrue(ended.acquire(timeout=30))
        self.assertTrue(all(found))

    def test_waits_of_both_kinds_take_turns(self) -> None:
        for number in range(300):
            self.assertEqual(self.executor.submit(calling.square, number).result(20), number * number)
            if number % 3 == 0:
                future = self.executor.submit(calling.square, number)
                self.assertEqual(len(concurrent.futures.wait([future], 20)[0]), 1)
            if number % 7 == 0:
                futures = [self.executor.submit(calling.square, other) for other in range(number % 50)]
                self.assertEqual(len(list(concurrent.futures.as_completed(futures, 20))), len(futures))

    def test_what_is_too_long_is_said(self) -> None:
        with unittest.mock.patch("lswitch.executor.PAYLOAD_MAX", 1000):
            with self.assertRaisesRegex(TooLongError, "the call has 10[0-9]* bytes, over the limit of 1000.*file or a store"):
                self.executor.submit(calling.same, bytes(1000))
        with self.assertRaisesRegex(TooLongError, "the result has 268435457 bytes, over the limit"):
            self.executor.submit(calling.long, 256 << 20).result(60)
        # Twelve results that are not too long each, and are together.
        found = self.executor.map(calling.long, [1 << 20] * 12, chunksize=12)
        self.assertEqual([len(data) for data in found], [1 << 20] * 12)

    def test_long_calls_and_results_travel_in_pieces(self) -> None:
        # Of a length that leaves no rest, of more than a worker's mailbox holds, and short ones among them.
        for length in (8 << 20, 16 << 20, (50 << 20) + 7):
            data = os.urandom(1 << 20) * (length >> 20) + bytes(length % (1 << 20))
            long = self.executor.submit(calling.same, data)
            short = [self.executor.submit(calling.square, number) for number in range(100)]
            self.assertEqual([future.result(60) for future in short], [number * number for number in range(100)])
            self.assertTrue(long.result(60) == data)

    def test_what_cannot_be_sent_is_said(self) -> None:
        for call in (
            lambda: self.executor.submit(calling.same, {1, 2}),
            lambda: self.executor.submit(calling.same, {1: 2}),
            lambda: self.executor.submit(calling.a_set, 1).result(20),
            lambda: list(self.executor.map(calling.same, [{1, 2}])),
            lambda: list(self.executor.map(calling.a_set, [1, 2])),
        ):
            with self.assertRaisesRegex(MessageError, r'Executor\(serializer="pickle"\)'):
                call()
        for function in (lambda: 1, calling.Adder(1), functools.partial(calling.add, 1)):
            with self.assertRaisesRegex(MessageError, r'by name.*Executor\(serializer="cloudpickle"\)'):
                self.executor.submit(function)

    def test_a_function_that_is_not_there(self) -> None:
        def stray() -> None:
            pass

        stray.__module__, stray.__qualname__ = "nowhere", "stray"
        sys.modules["nowhere"] = sys.modules[__name__]
        sys.modules[__name__].stray = stray  # type: ignore[attr-defined]
        self.addCleanup(sys.modules.pop, "nowhere")
        with self.assertRaisesRegex(MessageError, "the worker cannot import nowhere.*No module named 'nowhere'"):
            self.executor.submit(stray).result(20)

    def test_apply_and_its_callbacks(self) -> None:
        self.assertEqual(self.executor.apply(calling.add, (1,), {"other": 5}), 6)
        told: List[Any] = []
        happened = threading.Semaphore(0)

        def tell(value: Any) -> None:
            told.append(value)
            happened.release()

        self.executor.apply_async(calling.square, (3,), callback=tell)
        self.assertTrue(happened.acquire(timeout=20))
        failing = self.executor.apply_async(calling.fail, ("words",), callback=tell, error_callback=tell)
        self.assertTrue(happened.acquire(timeout=20))
        self.assertEqual((told[0], str(told[1])), (9, "words"))
        self.assertEqual((failing.ready(), failing.successful()), (True, False))  # type: ignore[attr-defined]

    def test_workers_have_the_callers_folder_and_modules(self) -> None:
        self.assertEqual(self.executor.submit(calling.folder).result(20), os.getcwd())
        self.assertEqual(self.executor.submit(calling.variable, "LSWITCH_MAIN").exception(20), None)


@NEEDS_BINARY
class Pickled(Hangs):
    def test_pickle_takes_whatever_can_be_pickled(self) -> None:
        with Executor(1, serializer="pickle") as executor:
            self.assertEqual(executor.submit(calling.same, {(1, 2): {3}}).result(20), {(1, 2): {3}})
            self.assertEqual(executor.submit(calling.Adder(5), 1).result(20), 6)
            self.assertEqual(executor.submit(functools.partial(calling.add, 10), 1).result(20), 11)
            self.assertEqual(list(executor.map(calling.a_set, [1, 2])), [{1}, {2}])
            self.assertEqual(executor.map_reduce(calling.a_set, range(50), operator.or_), set(range(50)))
            own = executor.submit(calling.fail_in_my_own_way).exception(20)
            self.assertIn("OwnError", str(type(own)) + str(own))
            with self.assertRaisesRegex(MessageError, "cloudpickle"):
                executor.submit(lambda: 1)

    @unittest.skipUnless(HAS_CLOUDPICKLE, "cloudpickle is not installed")
    def test_cloudpickle_takes_functions_by_value(self) -> None:
        amount = 7
        with Executor(1, serializer="cloudpickle") as executor:
            self.assertEqual(executor.submit(lambda number: number + amount, 1).result(20), 8)
            self.assertEqual(list(executor.map(lambda number: number * amount, range(5))), [0, 7, 14, 21, 28])
            self.assertEqual(executor.submit(lambda: lambda: 5).result(20)(), 5)
            self.assertEqual(executor.map_reduce(lambda n: {n}, range(5), lambda a, b: a | b), set(range(5)))

    def test_a_worker_refuses_pickles_that_its_event_does_not_allow(self) -> None:
        from lswitch.call import ONE, PICKLE, dumps, head, read_failed
        from lswitch.failure import unpack
        from lswitch.worker import Runner

        for payload in (
            head(ONE, PICKLE, ["calling:same"], "pickle") + dumps(((1,), {}), "pickle"),
            head(ONE, 0, [dumps(calling.nothing, "pickle")], "pickle"),
        ):
            ending, answer = Runner(False)(payload)
            self.assertEqual(ending, 2)
            self.assertRegex(str(unpack(read_failed(answer)[0], False)), r"Executor\(serializer=.*--allow-pickle")
            self.assertEqual(Runner(True)(payload)[0], 0)


@NEEDS_BINARY
class Lost(Hangs):
    def setUp(self) -> None:
        super().setUp()
        home = tempfile.TemporaryDirectory(prefix="lswitch-python-")
        self.addCleanup(home.cleanup)
        self.folder = home.name

    def test_a_call_whose_worker_is_killed_is_done_elsewhere(self) -> None:
        with Executor(2) as executor:
            self.assertEqual(executor.submit(calling.die_once, self.folder, 5).result(30), 5)
            pid = executor.submit(calling.process).result(30)
            slow = executor.submit(calling.process, 1.0)
            time.sleep(0.3)
            os.kill(pid, signal.SIGKILL)
            others = [executor.submit(calling.square, number) for number in range(200)]
            self.assertEqual([other.result(30) for other in others], [number * number for number in range(200)])
            self.assertIsInstance(slow.result(30), int)

    def test_a_call_that_always_ends_its_worker_fails_alone(self) -> None:
        with Executor(2, retries=1) as executor:
            others = [executor.submit(calling.square, number) for number in range(100)]
            killer = executor.submit(calling.die)
            others += [executor.submit(calling.square, number) for number in range(100)]
            with self.assertRaisesRegex(WorkerLostError, "the call was given up after it lost 2 workers"):
                killer.result(40)
            self.assertEqual([other.result(30) for other in others], 2 * [number * number for number in range(100)])
            self.assertEqual(executor.submit(calling.square, 3).result(30), 9)

    def test_in_a_chunk_too(self) -> None:
        with Executor(2, retries=0) as executor:
            found: List[int] = []
            with self.assertRaises(WorkerLostError):
                for value in executor.map(calling.die_at, range(20), chunksize=10):
                    found.append(value)
            self.assertEqual(found, [0, 1, 2, 3, 4, 5, 6])

    def test_a_call_that_raises_is_not_tried_again(self) -> None:
        with Executor(1) as executor:
            for _ in range(3):
                with self.assertRaises(ValueError):
                    executor.submit(calling.count_and_fail, self.folder).result(20)
        self.assertEqual(len(os.listdir(self.folder)), 3)

    def test_a_worker_whose_time_is_up_leaves_in_order(self) -> None:
        file = Path(self.folder, "short.toml")
        file.write_text(function_file({}).replace("timeout_s = 900", "timeout_s = 3"))
        with Executor(2, local_function=str(file), retries=0) as executor:
            futures = [executor.submit(calling.rest, 0.1, number) for number in range(120)]
            self.assertEqual([future.result(40) for future in futures], list(range(120)))
            self.assertEqual(executor._calls.lost, 0, executor._calls.last_lost)

    def test_a_function_behind_the_interface_of_aws(self) -> None:
        switch = Switch()
        self.addCleanup(switch.stop)
        functions = Path(switch.home, "functions")
        functions.mkdir()
        Path(functions, "far.toml").write_text(function_file({}))
        local = subprocess.Popen(
            [BINARY, "local", "--listen", "127.0.0.1:0", "--json", "--quiet"],
            stdout=subprocess.PIPE,
            env={**os.environ, "LSWITCH_HOME": switch.home},
            text=True,
        )
        assert local.stdout is not None
        self.addCleanup(local.stdout.close)
        self.addCleanup(local.wait)
        self.addCleanup(local.terminate)
        more = {
            "LSWITCH_HOME": switch.home,
            "AWS_ENDPOINT_URL_LAMBDA": json.loads(local.stdout.readline())["endpoint"],
            **{"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"},
        }
        with unittest.mock.patch.dict(os.environ, more):
            with Executor(2, function="far", lswitch_args=["--switch", switch.address, "--store", self.folder]) as executor:
                self.assertEqual(list(executor.map(calling.square, range(100))), [n * n for n in range(100)])

    def test_when_the_driver_is_killed_nothing_hangs(self) -> None:
        executor = Executor(2)
        pid = executor.submit(calling.process).result(30)
        futures = [executor.submit(calling.rest, 2.0) for _ in range(2000)]
        executor._calls._driver.process.kill()
        for future in futures:
            if not future.cancelled():
                self.assertRaisesRegex(BrokenExecutor, "lswitch invoke pool ended with signal 9", future.result, 20)
        with self.assertRaises(BrokenExecutor):
            executor.submit(calling.nothing)
        executor.shutdown()
        self.assertTrue(died(pid), "the worker outlives its driver")

    def test_when_the_driver_cannot_go_on_its_words_are_told(self) -> None:
        executor = Executor(2, lswitch_args=["--no-such-option"])
        with self.assertRaisesRegex(BrokenExecutor, "ended with exit code 2: .*--no-such-option"):
            while True:
                executor.submit(calling.nothing).result(20)
        executor.shutdown()

    def test_workers_that_cannot_start(self) -> None:
        broken = Path(self.folder, "broken.toml")
        broken.write_text(f'command = ["{sys.executable}", "-c", "raise SystemExit(\'no such module here\')"]\n')
        with Executor(1, local_function=str(broken)) as executor:
            with self.assertRaisesRegex(BrokenExecutor, "lswitch invoke pool ended with exit code 1"):
                executor.submit(calling.nothing).result(40)


@NEEDS_BINARY
class Ends(Hangs):
    def test_shutdown_does_what_was_submitted(self) -> None:
        executor = Executor(2)
        futures = [executor.submit(calling.rest, 0.01, number) for number in range(50)]
        executor.shutdown()
        self.assertTrue(all(future.done() for future in futures))
        self.assertEqual([future.result() for future in futures], list(range(50)))
        with self.assertRaisesRegex(RuntimeError, "cannot schedule new futures after shutdown"):
            executor.submit(calling.nothing)
        executor.shutdown()
        self.assertEqual(executor._calls._driver.process.returncode, 0)

    def test_what_waits_can_be_cancelled(self) -> None:
        with Executor(1) as executor:
            executor.submit(calling.rest, 0.2).result(20)
            futures = [executor.submit(calling.rest, 0.2, number) for number in range(40)]
            self.assertFalse(futures[0].cancel())
            self.assertTrue(futures[-1].cancel())
            self.assertTrue(futures[-1].cancel())
            self.assertEqual((futures[-1].cancelled(), futures[-1].done()), (True, True))
            done, _ = concurrent.futures.wait([futures[-1]], 1)
            self.assertEqual(len(done), 1)
            with self.assertRaises(CancelledError):
                futures[-1].result()
            executor.shutdown(cancel_futures=True)
            cancelled = [future for future in futures if future.cancelled()]
            self.assertGreater(len(cancelled), 20)
            rest = [future.result() for future in futures if not future.cancelled()]
            self.assertEqual(rest, list(range(len(rest))))

    def test_who_is_told_of_a_cancelled_call_may_make_another(self) -> None:
        with Executor(1) as executor:
            executor.submit(calling.rest, 0.2).result(20)
            futures = [executor.submit(calling.rest, 0.2, number) for number in range(40)]
            others: List[Any] = []
            futures[-1].add_done_callback(lambda _: others.append(executor.submit(calling.rest, 0.0, 7)))
            self.assertTrue(futures[-1].cancel())
            self.assertEqual(len(others), 1)
            executor.shutdown(cancel_futures=True)

    def test_a_call_that_ends_its_worker_costs_no_other(self) -> None:
        with Executor(1, retries=0) as executor:
            before = [executor.submit(abs, -number) for number in range(30)]
            deadly = executor.submit(os._exit, 3)
            after = [executor.submit(abs, -number) for number in range(30)]
            self.assertEqual([future.result(60) for future in before + after], 2 * list(range(30)))
            with self.assertRaises(Exception):
                deadly.result(60)

    def test_without_a_call_no_worker_is_started(self) -> None:
        with Executor(2) as executor:
            time.sleep(0.2)
            self.assertEqual(executor.workers, 0)

    def test_idle_workers_go_and_come_back(self) -> None:
        with Executor(1, idle_timeout=0.3) as executor:
            first = executor.submit(calling.rank).result(20)
            self.assertEqual(executor.submit(calling.rank).result(20), first)
            time.sleep(1.5)
            # The process may be the same, as on Lambda; its rank is not.
            self.assertNotEqual(executor.submit(calling.rank).result(20), first)

    def test_terminate(self) -> None:
        executor = Executor(1)
        executor.submit(calling.nothing).result(20)
        future = executor.submit(calling.rest, 60.0)
        time.sleep(0.1)
        executor.terminate()
        with self.assertRaisesRegex(BrokenExecutor, "was terminated"):
            future.result(20)
        executor.shutdown()

    def test_a_pool(self) -> None:
        with Pool(2) as pool:
            self.assertEqual(pool.map(calling.square, range(10)), [n * n for n in range(10)])
            self.assertEqual(pool.starmap(calling.add, [(1, 2), (3, 4)]), [3, 7])
            self.assertEqual(list(pool.imap(calling.square, range(3))), [0, 1, 4])
            waiting = pool.apply_async(calling.rest, (0.2, "done"))
            pool.close()
            pool.join()
            self.assertEqual(waiting.get(), "done")  # type: ignore[attr-defined]

    def test_a_missing_binary(self) -> None:
        with self.assertRaisesRegex(MissingBinaryError, "'/no/such/lswitch' is no program.*cargo build"):
            Executor(1, binary="/no/such/lswitch")

    def test_variables_of_workers(self) -> None:
        with Executor(1, env={"A_VARIABLE": 'with "quotes" and \\ and ä'}) as executor:
            self.assertEqual(executor.submit(calling.variable, "A_VARIABLE").result(20), 'with "quotes" and \\ and ä')

    def script(self, text: str, *more: str) -> "subprocess.CompletedProcess[str]":
        home = tempfile.TemporaryDirectory(prefix="lswitch-python-")
        self.addCleanup(home.cleanup)
        path = Path(home.name, "my_script.py")
        path.write_text(text)
        source = str(Path(lswitch.__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": source, "LSWITCH": BINARY}
        command = [sys.executable, *more] if more else [sys.executable, str(path)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, cwd=home.name)

    def test_functions_and_classes_of_a_script(self) -> None:
        done = self.script(
            "import lswitch\n"
            "class Thing:\n    def __init__(self, n): self.n = n\n"
            "def double(n): return 2 * n\n"
            "def thing(t): assert type(t) is Thing; return Thing(t.n + 1)\n"
            "if __name__ == '__main__':\n"
            "    with lswitch.Executor(1) as executor: print(list(executor.map(double, range(3))))\n"
            "    with lswitch.Executor(1, serializer='pickle') as executor:\n"
            "        found = executor.submit(thing, Thing(1)).result(); assert type(found) is Thing; print(found.n)\n"
        )
        self.assertEqual(done.stdout, "[0, 2, 4]\n2\n", done.stderr)

    def test_a_script_that_does_its_work_when_it_is_imported(self) -> None:
        done = self.script("import lswitch\ndef f(): pass\nlswitch.Executor(1, retries=0).submit(f).result()\n")
        self.assertIn("my_script makes an Executor whenever it is imported", done.stderr)
        self.assertIn('under if __name__ == "__main__":', done.stderr)

    def test_a_program_that_forgets_to_shut_down_ends(self) -> None:
        done = self.script(
            "import lswitch, math\n"
            "if __name__ == '__main__':\n"
            "    future = lswitch.Executor(1).submit(math.sqrt, 4)\n"
            "    future.add_done_callback(lambda future: print(future.result()))\n"
        )
        self.assertEqual((done.stdout, done.returncode), ("2.0\n", 0), done.stderr)

    def test_functions_that_were_typed_in(self) -> None:
        text = "import lswitch\ndef f(): pass\nwith lswitch.Executor(1) as executor: executor.submit(f)"
        done = self.script("", "-c", text)
        self.assertIn("typed in", done.stderr)
        self.assertIn('Executor(serializer="cloudpickle")', done.stderr)


if __name__ == "__main__":
    unittest.main()
