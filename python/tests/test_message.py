"""The envelope: what goes in comes out, and nothing is unpickled unasked."""

from __future__ import annotations

import pickle
import unittest

import support  # noqa: F401

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
        self.assertEqual(there_and_back(bytearray(b"ab")), b"ab")
        self.assertEqual(there_and_back((1, 2)), [1, 2])

    def test_what_would_come_as_something_else_is_refused(self) -> None:
        for value in ({1: 2}, [{"a": {2: 3}}], {"a": [{None: 1}]}):
            with self.assertRaisesRegex(MessageError, "keys are not all text"):
                message.encode(value)
        with self.assertRaisesRegex(MessageError, "a set is no message: .*serializer=\"pickle\""):
            message.encode({1})
        endless: list = []
        endless.append(endless)
        with self.assertRaisesRegex(MessageError, "holds itself"):
            message.encode(endless)

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
            self.assertEqual(found.dtype, array.dtype.newbyteorder("="))
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
