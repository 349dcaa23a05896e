"""The bytes on the wire, against tests/golden/wire.txt of the Rust side, and what hostile bytes get."""

from __future__ import annotations

import re
import unittest
from pathlib import Path
from typing import Dict

from support import driver_code, job_key, pack_code

from lswitch import codec, frame, routing
from lswitch.errors import ProtocolError
from lswitch.proof import is_proved, proof

ROOT = Path(__file__).resolve().parents[2]


def golden() -> Dict[str, bytes]:
    sections: Dict[str, bytes] = {}
    title = ""
    for line in (ROOT / "tests/golden/wire.txt").read_text().splitlines():
        if line.startswith("=="):
            title = re.sub(r"^== ([<>] )*", "", line)
            sections[title] = b""
        elif line and not line.startswith("#"):
            # The bytes of a line stand in its first 47 columns; what they mean is behind.
            sections[title] += bytes.fromhex(line[:47])
    return sections


GOLDEN = golden()
JOB = bytes(range(16))
EXPIRY = 1_900_000_000
SECRET = b"an example, and nobody's secret"
NONCE = b"\xa5" * 32


def body_of(title: str) -> bytes:
    return GOLDEN[title][frame.HEADER_LEN :]


class Golden(unittest.TestCase):
    def test_hellos(self) -> None:
        key = job_key(SECRET, JOB)
        pack = codec.hello(0, "0.1.0", JOB, EXPIRY, pack_code(key, 4, 2, 1, EXPIRY), codec.pack_role(4, 2, 1, 0, 1 << 20))
        self.assertEqual(frame.control(frame.HELLO, pack), GOLDEN["the hello of a pack"])
        driver = codec.hello(0, "0.1.0", JOB, EXPIRY, driver_code(key, EXPIRY), codec.driver_role(8, 1 << 20))
        self.assertEqual(frame.control(frame.HELLO, driver), GOLDEN["the hello of a driver"])
        code = pack_code(key, 4, 2, 1, EXPIRY)
        asking = codec.hello(0, "0.1.0", JOB, EXPIRY, code, codec.pack_role(4, 2, 1, 0, 1 << 20), NONCE)
        self.assertEqual(frame.control(frame.HELLO, asking), GOLDEN["the hello of a pack that asks for a proof"])
        self.assertEqual(frame.PREAMBLE, GOLDEN["the preamble, both ways"])

    def test_what_a_client_says(self) -> None:
        self.assertEqual(frame.control(frame.HEARTBEAT), GOLDEN["heartbeat of a client"])
        self.assertEqual(frame.control(frame.LEAVE, codec.leave(None)), GOLDEN["leave, done"])
        self.assertEqual(frame.control(frame.LEAVE, codec.leave("it broke")), GOLDEN["leave, failed"])
        self.assertEqual(codec.progress(12, 0.5), GOLDEN["a progress report, as the driver reads it"])
        self.assertEqual(codec.usage(1769, True, 61_250), GOLDEN["what a pack has taken, as the driver reads it"])

    def test_what_the_switch_says(self) -> None:
        self.assertEqual(codec.welcome(body_of("welcome")), codec.Welcome(1, 0, 2000, 10000))
        code = pack_code(job_key(SECRET, JOB), 4, 2, 1, EXPIRY)
        proved = codec.welcome(body_of("welcome, with the proof"))
        self.assertEqual(proved, codec.Welcome(1, frame.PROOF, 2000, 10000, proof(code, NONCE)))
        self.assertTrue(is_proved(code, NONCE, proved.proof))
        self.assertFalse(is_proved(code, bytes(32), proved.proof))
        self.assertEqual(codec.refused(body_of("refused, by the code of a wrong token")), (2, "the token is wrong"))
        self.assertEqual(codec.end(body_of("end")), "enough")
        start = codec.start(body_of("start, of four packs of two ranks, the last with larger mailboxes"))
        self.assertEqual(start.runs, (codec.Run(3, 2, 1 << 20, 0), codec.Run(1, 2, 1 << 21, frame.CRC32)))
        self.assertEqual((start.driver_mailbox, start.segment), (1 << 20, 65536))

    def test_a_message_in_one_chunk_and_in_two(self) -> None:
        from lswitch.checksum import crc32c

        whole = body_of("data: a message in one chunk")
        total, piece, checksum = frame.chunk_parts(3, memoryview(whole))
        self.assertEqual((total, bytes(piece), checksum), (11, b"one message", crc32c(b"one message")))
        first = frame.chunk_parts(1, memoryview(body_of("data: the same message in two chunks, the first")))
        last = frame.chunk_parts(2, memoryview(body_of("data: the same message in two chunks, the last")))
        self.assertEqual(bytes(first[1]) + bytes(last[1]), b"one message")
        self.assertEqual((first[0], first[2], last[0], last[2]), (11, -1, -1, crc32c(b"one message")))
        empty = frame.chunk_parts(3, memoryview(body_of("data: an empty message")))
        self.assertEqual((empty[0], bytes(empty[1]), empty[2]), (0, b"", 0))

    def test_a_rank_writes_a_message_as_the_rust_side_does(self) -> None:
        from types import SimpleNamespace

        from lswitch.writing import write_small

        comm = SimpleNamespace(epoch=0, rank=4)
        peer = SimpleNamespace(rank=1, wire=SimpleNamespace(crc32=False))
        made = write_small(comm, peer, 0, 7, 2, b"one message")  # type: ignore[arg-type]
        self.assertEqual(made, GOLDEN["data: a message in one chunk"])
        asking = SimpleNamespace(rank=1, wire=SimpleNamespace(crc32=True))
        made = write_small(comm, asking, 0, 7, 2, b"one message")  # type: ignore[arg-type]
        self.assertEqual(made, GOLDEN["data: a message for a rank that asks for CRC-32"])
        driver = SimpleNamespace(rank=frame.DRIVER, wire=SimpleNamespace(crc32=False))
        made = write_small(comm, driver, 0, 0, 0, codec.result(b"ok"))  # type: ignore[arg-type]
        self.assertEqual(made, GOLDEN["data: a rank's result for the driver"])


class Hostile(unittest.TestCase):
    def test_each_cut_of_a_body_is_refused(self) -> None:
        readers = {
            "welcome": codec.welcome,
            "welcome, with the proof": codec.welcome,
            "refused, by the code of a wrong token": codec.refused,
            "end": codec.end,
            "start, of four packs of two ranks, the last with larger mailboxes": codec.start,
        }
        for title, read in readers.items():
            body = body_of(title)
            for length in range(len(body)):
                with self.assertRaises(ProtocolError, msg=f"{title} cut to {length}"):
                    read(body[:length])
            with self.assertRaises(ProtocolError):
                read(body + b"\0")

    def test_lying_lengths_allocate_nothing(self) -> None:
        with self.assertRaises(ProtocolError):
            codec.end((1 << 63).to_bytes(8, "little"))
        with self.assertRaises(ProtocolError):
            codec.start((1 << 60).to_bytes(8, "little") + bytes(20))

    def test_chunks_that_are_too_short_or_too_long(self) -> None:
        for flags, length in ((3, 11), (1, 7), (2, 3), (0, 65537), (3, 65549)):
            with self.assertRaises(ProtocolError):
                frame.chunk_parts(flags, memoryview(bytes(length)))

    def test_a_start_names_packs_and_segments_or_neither(self) -> None:
        def body(runs: bytes, segment: int) -> bytes:
            return (len(runs) // 16).to_bytes(8, "little") + runs + (1 << 20).to_bytes(4, "little") + segment.to_bytes(4, "little")

        run = b"".join(number.to_bytes(4, "little") for number in (3, 1, 1 << 20, 1))
        fixed, elastic = codec.start(body(run, 65536)), codec.start(body(b"", 0))
        self.assertEqual((fixed.runs, fixed.elastic), ((codec.Run(3, 1, 1 << 20, 1),), False))
        self.assertEqual((elastic.runs, elastic.driver_mailbox, elastic.elastic), ((), 1 << 20, True))
        for runs, segment in ((run, 0), (b"", 65536), (run, 17)):
            with self.assertRaises(ProtocolError):
                codec.start(body(runs, segment))

    def test_a_long_reason_is_cut(self) -> None:
        put = codec.put_reason("ä" * 20_000)
        self.assertLessEqual(len(put), 8 + frame.REASON_MAX)
        self.assertTrue(put.endswith(b" ..."))
        put[8:].decode()


class Routing(unittest.TestCase):
    def test_the_table_of_the_protocol(self) -> None:
        text = (ROOT / "docs/PROTOCOL.md").read_text()
        table = text.split("<!-- table: switches -->")[1].split("\n\n")[0]
        rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", table, re.M)
        self.assertGreaterEqual(len(rows), 5)
        for row in rows:
            a, b, *due = map(int, row)
            self.assertEqual([routing.switch_of_pair(a, b, n) for n in (2, 3, 8)], due)
            self.assertEqual([routing.switch_of_pair(b, a, n) for n in (2, 3, 8)], due)

    def test_packs_in_runs(self) -> None:
        packs = routing.Packs(codec.Start((codec.Run(3, 2, 10, 0), codec.Run(2, 1, 20, 0)), 0, 16))
        self.assertEqual([packs.number_of(rank) for rank in range(8)], [0, 0, 1, 1, 2, 2, 3, 4])
        self.assertEqual([tuple(span) for span in packs], [(0, 2), (2, 2), (4, 2), (6, 1), (7, 1)])
        self.assertEqual((packs.size, packs.count, packs.mailbox_of(5), packs.mailbox_of(6)), (8, 5, 10, 20))

    def test_kinds_flags_and_limits_are_those_of_the_protocol(self) -> None:
        text = (ROOT / "docs/PROTOCOL.md").read_text()
        kinds = re.findall(r"^\| 0x([0-9a-f]{2}) \| ([A-Z]+) \| [a-z]", text, re.M)
        known = {name: number for number, name in kinds if hasattr(frame, name)}
        self.assertGreaterEqual(len(known), 15)
        for name, number in known.items():
            self.assertEqual(getattr(frame, name), int(number, 16), name)
        for name, value in re.findall(r"^\| ([A-Z_]+) \| (\d+) \|", text, re.M):
            if hasattr(frame, name):
                self.assertEqual(getattr(frame, name), int(value), name)

    def test_the_release_is_the_crates(self) -> None:
        from lswitch.release import RELEASE

        for place in ("Cargo.toml", "python/pyproject.toml"):
            self.assertIn(f'version = "{RELEASE}"', (ROOT / place).read_text())


if __name__ == "__main__":
    unittest.main()
