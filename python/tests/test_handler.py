"""Handlers in this process: what they return, what the driver is told, what is left behind."""

from __future__ import annotations

import json
import threading
import unittest
from typing import Any, Dict

import functions
from support import NEEDS_BINARY, Context, OnASwitch, in_threads

from lswitch.errors import ConnectionLostError, DeadlineError, EventError, MessageError, TooLongError
from lswitch.handler import encode_result


class Events(unittest.TestCase):
    GOOD: Dict[str, Any] = {
        "version": 1,
        "release": "0.1.0",
        "job": "00" * 16,
        "switches": ["127.0.0.1:1"],
        "token": {"expiry_s": 1, "code": "00" * 32},
        "first_rank": 0,
        "ranks": 1,
        "size": 1,
        "epoch": 0,
        "incarnation": 1,
        "join_within_s": 1,
        "program": "x",
        "store": "",
    }

    def refused(self, words: str, **change: Any) -> None:
        with self.assertRaisesRegex(EventError, words):
            functions.ring({**self.GOOD, **change}, Context())

    def test_events_that_are_none(self) -> None:
        for event in (None, 3, [], {}, {"key1": "value1"}):
            with self.assertRaisesRegex(EventError, "none of lswitch's"):
                functions.ring(event, Context())
        self.assertEqual(EventError.__name__, "Lswitch.Event")

    def test_another_version_says_what_to_install(self) -> None:
        self.refused(r"version 2, .* takes 1; .*pip install lswitch==9\.9\.9", version=2, release="9.9.9", job=None)

    def test_several_ranks_in_a_function(self) -> None:
        self.refused("asks for 4 ranks in one function.*--workers-per-function 1", ranks=4)

    def test_fields_that_do_not_fit(self) -> None:
        self.refused("job is not 32 hexadecimal digits", job="xyz")
        self.refused("token.code is not 64 hexadecimal digits", token={"expiry_s": 1, "code": "00"})
        self.refused("names 0 switches", switches=[])
        self.refused("HOST:PORT", switches=["nowhere"])
        self.refused("rank 5 of a job of 1", first_rank=5)
        self.refused("size is '1', not a number", size="1")
        self.refused("join_within_s is True", join_within_s=True)

    def test_the_example_of_the_docs_is_read(self) -> None:
        from pathlib import Path

        from lswitch import event

        text = Path(__file__).resolve().parents[2].joinpath("docs/EVENT.md").read_text()
        example = json.loads(text.split("```json")[1].split("```")[0])
        example["ranks"] = 1
        parsed = event.parse(example)
        self.assertEqual((parsed.rank, parsed.size, parsed.switches), (4, 8, ("10.0.0.5:7000",)))
        self.assertEqual(parsed.for_program(), example["arguments"])
        self.assertEqual(event.parse({**example, "arguments": None}).for_program(), example["event"])


def values_that_json_would_change() -> "list[tuple[Any, str]]":
    changed: "list[tuple[Any, str]]" = [
        ({1: "a", "1": "b"}, "the key 1, which is no text"),
        ([{"a": {None: 1}}], "the key None, which is no text"),
    ]
    try:
        import numpy as np
    except ImportError:
        return changed
    masked = np.ma.array([1], mask=[True])
    times = np.array(["2020-01-01"], "M8[ns]")
    return [*changed, ({"m": masked}, "MaskedArray, which is more than"), (times, "an array of datetime64"), (times[0], "a number of datetime64")]


@NEEDS_BINARY
class Handlers(OnASwitch):
    def run_handler(self, handler: Any, size: int, seconds: float = 30, **event: Any) -> Any:
        driver = self.drive(size)
        outcomes: list = [None] * size

        def rank(number: int) -> None:
            try:
                outcomes[number] = handler(driver.event(number, **event), Context(seconds))
            except Exception as error:
                outcomes[number] = error

        in_threads(size, rank)
        driver.close()
        self.assertFalse([thread for thread in threading.enumerate() if "lswitch" in thread.name])
        return driver, outcomes

    def test_the_result_goes_to_the_driver_and_the_answer_is_short(self) -> None:
        driver, outcomes = self.run_handler(functions.echo, 3, arguments={"a": 1})
        self.assertEqual({frozenset(one) for one in outcomes}, {frozenset(["ranks", "seconds"])})
        for rank in range(3):
            due = {"event": {"a": 1}, "rank": rank, "uid": rank, "peers": [0, 1, 2], "total": 3}
            self.assertEqual(json.loads(driver.results[rank]), due)
        self.assertEqual(len(driver.progress), 3)
        self.assertEqual(sorted(rank for rank, _ in driver.usage), [0, 1, 2])

    def test_bytes_are_results_as_they_are(self) -> None:
        driver, _ = self.run_handler(functions.ring, 3)
        self.assertEqual(driver.results, {0: b"0 1 2", 1: b"passed on", 2: b"passed on"})

    def test_an_exception_reaches_the_driver_and_the_caller(self) -> None:
        driver = self.drive(2)
        errors: list = [None, None]

        def rank(number: int) -> None:
            try:
                functions.broken(driver.event(number), Context())
            except Exception as error:
                errors[number] = error
                if number == 1:
                    # As the reference driver does at the first failure.
                    driver.abort("a rank failed")

        in_threads(2, rank)
        self.assertIsInstance(errors[1], ValueError)
        self.assertRegex(driver.failures[1], r"^rank 1: ValueError: this rank is broken on purpose \(.*functions\.py:\d+\)$")
        self.assertIsInstance(errors[0], ConnectionLostError)

    def test_what_is_not_json_fails_with_words(self) -> None:
        driver, outcomes = self.run_handler(functions.not_json, 1)
        self.assertIsInstance(outcomes[0], MessageError)
        self.assertRegex(driver.failures[0], "returned a set that JSON cannot hold: a set; return bytes")

    def test_results_that_json_would_change_fail_with_words(self) -> None:
        for result, words in values_that_json_would_change():
            with self.assertRaisesRegex(MessageError, words):
                encode_result(result)
        self.assertEqual(encode_result({"a": (1, [2.5, None])}), b'{"a": [1, [2.5, null]]}')

    def test_a_long_result_arrives_and_one_over_the_limit_is_refused_where_it_is_returned(self) -> None:
        driver, _ = self.run_handler(functions.long, 2, arguments={"length": 17_000_000})
        self.assertEqual({rank: len(result) for rank, result in driver.results.items()}, {0: 17_000_000, 1: 17_000_001})
        driver, outcomes = self.run_handler(functions.long, 1, arguments={"length": (256 << 20) + 1})
        self.assertIsInstance(outcomes[0], TooLongError)
        self.assertRegex(driver.failures[0], r"rank 0 returned 268435457 bytes, over the limit of 268435456 \(256 MiB\)")

    def test_a_wait_ends_before_the_invocation_does(self) -> None:
        driver, outcomes = self.run_handler(functions.patient, 2, seconds=3)
        self.assertIsInstance(outcomes[0], DeadlineError)
        self.assertRegex(driver.failures[0], "rank 0 waited for a message with tag 3 from rank 1 until its deadline")

    def test_one_environment_serves_job_after_job(self) -> None:
        for _ in range(3):
            driver, _ = self.run_handler(functions.ring, 2)
            self.assertEqual(driver.results[0], b"0 1")

    def test_a_softwareforwarder_handler_runs_unchanged(self) -> None:
        driver, outcomes = self.run_handler(
            functions.forwarded, 3, server_url="http://127.0.0.1", rounds=2, allow_pickle=True
        )
        self.assertEqual([one["uid"] for one in outcomes], [1, 2, 3])
        self.assertEqual(outcomes[0]["res"], [[[2, 0]], [[3, 0]], [[2, 2]], [[3, 3]]])
        self.assertEqual(json.loads(driver.results[2])[0], 3)

    def test_a_softwareforwarder_handler_says_how_to_allow_pickle(self) -> None:
        event = self.drive(1).event(0, server_url="")
        self.assertRegex(functions.forwarded(event, Context())["Exception"], "--allow-pickle")


if __name__ == "__main__":
    unittest.main()
