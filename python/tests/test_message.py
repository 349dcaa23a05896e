"""The envelope: what goes in comes out, and nothing is unpickled unasked."""

from __future__ import annotations

import pickle
import random
import unittest

import support  # noqa: F401
import values

from lswitch import message
from lswitch.errors import MessageError

try:
    import numpy as np
except ImportError:
    np = None  # type: ignore[assignment]
try:
    import cloudpickle
except ImportError:
    cloudpickle = None


def there_and_back(value: object) -> object:
    return message.decode(message.encode(value))


class Trap:
    def __reduce__(self) -> object:
        return (print, ("the trap has run",))


class Envelope(unittest.TestCase):
    def test_bytes_and_json_come_back(self) -> None:
        for value in (b"", b"\0\1", "", "text ü", 0, -5, 1.5, True, None, [], [1, [2, {"a": None}]], {"k": [1, 2.5]}):
            found = there_and_back(value)
            self.assertEqual((type(found), found), (type(value), value))

    def test_each_value_comes_whole_with_its_types(self) -> None:
        for value in values.whole():
            found = there_and_back(value)
            self.assertTrue(values.same(found, value), f"{values.shown(value)} came as {values.shown(found)}")

    def test_values_within_values_come_whole(self) -> None:
        for seed in range(300):
            value = values.made(random.Random(seed))
            self.assertTrue(values.same(there_and_back(value), value), f"seed {seed}: {values.shown(value)}")

    def test_what_would_come_as_something_else_is_refused_with_its_place(self) -> None:
        for value, part in values.refused():
            with self.assertRaises(MessageError, msg=values.shown(value)) as caught:
                message.encode(value)
            words = str(caught.exception)
            self.assertIn(part, words)
            self.assertIn('serializer="pickle"', words)
            for within in ([value], (0, value), {"k": value}):
                with self.assertRaises(MessageError):
                    message.encode(within)
        endless: list = []
        endless.append(endless)
        with self.assertRaisesRegex(MessageError, "holds itself"):
            message.encode(endless)

    def test_the_json_serializer_refuses_what_json_would_change(self) -> None:
        self.assertEqual(message.decode(message.encode({"a": [1, None]}, "json")), {"a": [1, None]})
        for value, part in (((1,), "a tuple"), ({1: 2}, "the key 1"), ([b"a"], "a list with a bytes at [0]"), ("\ud800", "a str that JSON")):
            with self.assertRaises(MessageError) as caught:
                message.encode(value, "json")
            self.assertIn(part, str(caught.exception))

    def test_hostile_trees_are_named_errors(self) -> None:
        good = message.encode((b"ab", ["x", {"k": (1.5, bytearray(b"c"))}], [(1, 2), (3, 4)], 1j, "\ud800"))
        self.assertEqual(good[0], message.TREE)
        for length in range(len(good)):
            with self.assertRaises(MessageError):
                message.decode(good[:length])
        source = random.Random(7)
        for _ in range(2000):
            bad = bytearray(good)
            bad[source.randrange(1, len(bad))] = source.randrange(256)
            try:
                message.decode(bytes(bad))
            except MessageError:
                pass
        for bad in (b"\4" + b"\x08\1" + bytes(7), b"\4\x08" + b"\1" + bytes(7) + b"\x08" * 9, b"\4" + (b"\x08\1" + bytes(7)) * 5000 + b"\0", b"\1" + b"[" * 100_000):
            with self.assertRaises(MessageError):
                message.decode(bad)

    def test_pickle_needs_the_events_leave_on_both_sides(self) -> None:
        with self.assertRaisesRegex(MessageError, "--allow-pickle"):
            message.encode({1: 2}, "pickle")
        packed = message.encode({1: 2}, "pickle", allow_pickle=True)
        with self.assertRaisesRegex(MessageError, "a pickled message came; .*--allow-pickle"):
            message.decode(packed)
        self.assertEqual(message.decode(packed, allow_pickle=True), {1: 2})

    def test_a_trap_is_not_run(self) -> None:
        with self.assertRaises(MessageError):
            message.decode(b"\3" + pickle.dumps(Trap()))

    def test_broken_envelopes_are_named_errors(self) -> None:
        for data in (b"", b"\x09x", b"\1{", b"\1\xff", b"\2", b"\2\3<f8", b"\2\3<f8\1" + bytes(7), b"\2\2|O\1" + bytes(8)):
            with self.assertRaises(MessageError):
                message.decode(data)
        with self.assertRaises(MessageError):
            message.decode(b"\3garbage", allow_pickle=True)

    def test_an_unknown_serializer(self) -> None:
        with self.assertRaisesRegex(MessageError, "'xml' is no serializer"):
            message.encode(1, "xml")

    @unittest.skipIf(np is None, "NumPy is not installed")
    def test_arrays_come_back(self) -> None:
        arrays = [
            np.arange(6.0).reshape(2, 3),
            np.zeros((0, 4), dtype="i4"),
            np.array([True, False]),
            np.array(["a", "bcd"]),
            np.arange(8, dtype=">u2").reshape(2, 2, 2),
            np.arange(12).reshape(3, 4).T,
            np.array([1 + 2j]),
        ]
        for array in arrays:
            found = there_and_back(array)
            self.assertEqual(found.shape, array.shape)
            self.assertEqual(found.dtype, array.dtype)
            self.assertTrue((found == array).all())
            self.assertTrue(found.flags.writeable)
        self.assertEqual(there_and_back(np.float32(1.5)), np.float32(1.5))

    @unittest.skipIf(np is None, "NumPy is not installed")
    def test_hostile_arrays_are_named_errors(self) -> None:
        good = message.encode(np.arange(4.0))
        for length in range(len(good)):
            with self.assertRaises(MessageError):
                message.decode(good[:length])
        with self.assertRaises(MessageError):
            message.decode(good[:6] + b"\xff" * 8 + good[14:])
        with self.assertRaisesRegex(MessageError, "object"):
            message.encode(np.array([object()]))

    @unittest.skipIf(cloudpickle is None, "cloudpickle is not installed")
    def test_a_function_goes_by_value(self) -> None:
        base = 40
        packed = message.encode(lambda number: base + number, "cloudpickle", allow_pickle=True)
        self.assertEqual(message.decode(packed, allow_pickle=True)(2), 42)


if __name__ == "__main__":
    unittest.main()
