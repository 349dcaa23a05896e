"""CRC32C against known vectors, and its fast forms against the slow one."""

from __future__ import annotations

import random
import unittest
from unittest import mock

import support  # noqa: F401

from lswitch import checksum
from lswitch.checksum import crc32c


def slow(data: bytes, crc: int = 0) -> int:
    register = crc ^ 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


class Checksum(unittest.TestCase):
    def test_vectors_of_rfc_3720(self) -> None:
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c(b"\xff" * 32), 0x62A8AB43)
        self.assertEqual(crc32c(bytes(range(32))), 0x46DD794E)
        self.assertEqual(crc32c(bytes(reversed(range(32)))), 0x113FDB5C)
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(crc32c(b""), 0)

    def check_against_the_slow_form(self) -> None:
        source = random.Random(7)
        for length in [*range(70), 255, 256, 257, 511, 512, 513, 2047, 2048, 2049, 2304, 2305, 5000, 16641, 20001]:
            data = source.randbytes(length)
            cut = source.randrange(length + 1)
            due = slow(data)
            self.assertEqual(crc32c(data), due, length)
            self.assertEqual(crc32c(memoryview(bytearray(data))), due, length)
            self.assertEqual(crc32c(data[cut:], crc32c(data[:cut])), due, (length, cut))

    def test_all_lengths_without_numpy(self) -> None:
        with mock.patch.object(checksum, "_np", None):
            self.check_against_the_slow_form()

    @unittest.skipIf(checksum._np is None, "NumPy is not installed")
    def test_all_lengths_with_numpy(self) -> None:
        self.check_against_the_slow_form()


if __name__ == "__main__":
    unittest.main()
