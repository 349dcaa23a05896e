"""What a switch of today's binary does not do: the feature CRC32, and a switch that breaks the protocol. The switch here is a
few lines of this test."""

from __future__ import annotations

import socket
import struct
import threading
import time
import unittest
from typing import Any, Callable, Dict, List
from zlib import crc32

import support  # noqa: F401
import test_handler

from lswitch import event as events
from lswitch import frame
from lswitch.checksum import crc32c
from lswitch.collectives import Collectives
from lswitch.comm import Comm
from lswitch.errors import ConnectionLostError, ProtocolError, RefusedError, UnreachableError, UsageError
from lswitch.frame import ANNOUNCE, CRC32, CREDIT, DATA, DRIVER, FIRST, GRANT, HEADER, LAST, PROOF, START, SWITCH, U32, U64, WELCOME
from lswitch.proof import NONCE_LEN, proof


class Script:
    """A switch with two ranks, of which the client is rank 0 and the test plays rank 1."""

    def __init__(self, features: int, act: Callable[["Script"], None], elastic: bool = False) -> None:
        self.elastic = elastic
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.features = features
        self.frames: List[Any] = []
        self.hello = b""
        self.error: List[BaseException] = []
        self.thread = threading.Thread(target=self.run, args=(act,), daemon=True)
        self.thread.start()

    def event(self) -> Dict[str, Any]:
        port = self.listener.getsockname()[1]
        return {**test_handler.Events.GOOD, "switches": [f"127.0.0.1:{port}"], "size": 2, "join_within_s": 10}

    def run(self, act: Callable[["Script"], None]) -> None:
        try:
            self.socket, _ = self.listener.accept()
            self.socket.settimeout(10)
            self.exactly(8)
            self.socket.sendall(frame.PREAMBLE)
            _, self.hello = self.take()
            self.give(WELCOME, self.welcome())
            runs = U64.pack(0) if self.elastic else U64.pack(1) + struct.pack("<4I", 2, 1, 1 << 20, 1)
            self.give(START, runs + struct.pack("<II", 1 << 20, 0 if self.elastic else 65536))
            act(self)
        except BaseException as error:
            self.error.append(error)

    def welcome(self) -> bytes:
        """As of a switch that knows the token of the event."""
        nonce, code = self.hello[-NONCE_LEN:], bytes.fromhex(self.event()["token"]["code"])
        return struct.pack("<HQII", 1, self.features | PROOF, 200, 1000) + proof(code, nonce)

    def give(self, kind: int, body: bytes = b"", flags: int = 0, sequence: int = 0, source: int = SWITCH, tag: int = 0) -> None:
        to = DRIVER if source == SWITCH else 0
        self.socket.sendall(HEADER.pack(kind, flags, 0, 0, tag, source, to, sequence, len(body)) + body)

    def message(self, sequence: int, data: bytes, by_crc32: bool, wrong: int = 0, source: int = 1) -> None:
        check = (crc32(data) if by_crc32 else crc32c(data)) ^ wrong
        flags = 4 if by_crc32 else 0
        for begin in range(0, max(1, len(data)), 65536):
            ends = (FIRST if begin == 0 else 0) | (LAST if begin + 65536 >= len(data) else 0)
            head = U64.pack(len(data)) if ends & FIRST else b""
            tail = U32.pack(check) if ends & LAST else b""
            self.give(DATA, head + data[begin : begin + 65536] + tail, flags | ends, sequence, source=source)

    def take(self, *kinds: int) -> Any:
        while True:
            header = frame.Header._make(HEADER.unpack(self.exactly(32)))
            body = self.exactly(header.length)
            if header.kind in kinds or not kinds:
                return header, body

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def end(self) -> None:
        self.thread.join(10)
        self.listener.close()
        self.socket.close()
        if self.error and not isinstance(self.error[0], (EOFError, OSError)):
            raise self.error[0]


class Features(unittest.TestCase):
    def join(self, script: Script) -> Comm:
        self.addCleanup(script.end)
        comm = Comm.join(events.parse(script.event()), time.monotonic() + 20)
        self.addCleanup(comm.close)
        return comm

    def test_messages_are_checked_by_crc_32_where_the_switch_knows_it(self) -> None:
        seen: List[Any] = []

        def act(script: Script) -> None:
            seen.append(struct.unpack_from("<HHQ", script.hello)[2])
            for _ in range(3):
                seen.append(script.take(DATA))
            script.message(0, b"by crc-32", True)
            script.message(1, b"by crc32c", False)
            # A long one, in chunks.
            data = bytes(range(200)) * 500
            script.give(DATA, U64.pack(len(data)) + data[:65536], FIRST | 4, 2, source=1)
            script.give(DATA, data[65536:] + U32.pack(crc32(data)), LAST | 4, 2, source=1)
            script.take()

        script = Script(1, act)
        comm = self.join(script)
        comm.send(1, b"hello")
        comm.send(1, bytes(70_000))
        comm.flush()
        found = [comm.receive().data for _ in range(3)]
        self.assertEqual(found, [b"by crc-32", b"by crc32c", bytes(range(200)) * 500])
        features, (short, body), (first, _), (last, end) = seen
        self.assertEqual(features, CRC32 | PROOF)
        self.assertEqual((short.flags, body[-4:]), (7, U32.pack(crc32(b"hello"))))
        self.assertEqual((first.flags, last.flags, end[-4:]), (5, 6, U32.pack(crc32(bytes(70_000)))))

    def test_messages_are_checked_by_crc32c_where_it_does_not(self) -> None:
        seen: List[Any] = []
        script = Script(0, lambda script: seen.append(script.take(DATA)))
        comm = self.join(script)
        comm.send(1, b"hello")
        comm.flush()
        script.thread.join(10)
        self.assertEqual((seen[0][0].flags, seen[0][1][-4:]), (3, U32.pack(crc32c(b"hello"))))

    def test_a_process_that_has_taken_the_switchs_port_gives_a_worker_no_calls_and_learns_no_token(self) -> None:
        def of_another_token(script: Script) -> bytes:
            return struct.pack("<HQII", 1, PROOF, 200, 1000) + proof(b"x" * 32, script.hello[-NONCE_LEN:])

        def mirrored(script: Script) -> bytes:
            code = script.hello[-NONCE_LEN - 24 - 32 : -NONCE_LEN - 24]
            return struct.pack("<HQII", 1, PROOF, 200, 1000) + code

        answers: List[Callable[[Script], bytes]] = [
            lambda script: struct.pack("<HQII", 1, 0, 200, 1000),
            lambda script: struct.pack("<HQII", 1, CRC32, 200, 1000),
            of_another_token,
            mirrored,
        ]
        for answer in answers:
            script = Script(0, lambda script: script.message(0, b"a call", False, source=DRIVER), elastic=True)
            script.welcome = lambda answer=answer, script=script: answer(script)  # type: ignore[method-assign,misc]
            self.addCleanup(script.end)
            event = script.event()
            event["token"] = {**event["token"], "code": "7a" * 32}
            with self.assertRaisesRegex(UnreachableError, "does not know the job's secret.*another process listens there"):
                Comm.join(events.parse(event), time.monotonic() + 10)
            self.assertNotIn(bytes.fromhex("7a" * 32), script.hello)

    def broken(self, words: str, act: Callable[[Script], None], error: type = ProtocolError) -> None:
        def then_wait(script: Script) -> None:
            act(script)
            script.take(0xFF)

        comm = self.join(Script(1, then_wait))
        with self.assertRaisesRegex(error, words):
            comm.receive(timeout=10)
        comm.close()

    def test_what_breaks_the_protocol_is_named(self) -> None:
        def announce_twice(script: Script) -> None:
            script.give(ANNOUNCE, U64.pack(1 << 31), source=1)
            script.give(ANNOUNCE, U64.pack(1 << 31), sequence=1, source=1)

        def two_checksums(script: Script) -> None:
            script.give(DATA, U64.pack(6) + b"abc", FIRST, 0, source=1)
            script.give(DATA, b"def" + U32.pack(crc32(b"abcdef")), LAST | 4, 0, source=1)

        def too_much(script: Script) -> None:
            script.give(DATA, U64.pack(1 << 30), FIRST, 0, source=1)

        credit = U64.pack(5)
        cases: List[Any] = [
            ("its checksum is", lambda script: script.message(0, b"x", True, wrong=1)),
            ("its checksum is", lambda script: script.message(0, b"x", False, wrong=1)),
            ("message 1 from rank 1 to rank 0 arrived where number 0 was due", lambda script: script.message(1, b"", True)),
            ("gave back 5 bytes of credit where 0 were used", lambda script: script.give(CREDIT, credit, source=1)),
            ("granted message 7, which was not announced", lambda script: script.give(GRANT, b"", sequence=7, source=1)),
            ("names rank 9 in a job of 2", lambda script: script.give(GRANT, b"", source=9)),
            ("rank 1 sent a message for which it had no credit, and no grant", too_much),
            ("the driver sent a message for which it had no credit", lambda script: script.message(0, b"", True, source=DRIVER)),
            ("its first chunk is missing", lambda script: script.give(DATA, b"abc", 0, 0, source=1)),
            ("too short or too long", lambda script: script.give(DATA, b"abc", FIRST | LAST, 0, source=1)),
            ("its chunks differ in group, tag or checksum", two_checksums),
            ("announced 4294967297 bytes", lambda script: script.give(ANNOUNCE, U64.pack((1 << 32) + 1), source=1)),
            ("announced two messages", announce_twice),
            ("of kind 0x12 with 12 bytes|a contribution that was not made", lambda script: script.give(0x12, bytes(12))),
            ("of kind 0x7f with 3 bytes at the wrong time", lambda script: script.give(0x7F, b"abc")),
            ("with 99999 bytes", lambda script: script.give(0x05, bytes(99_999))),
        ]
        for words, act in cases:
            with self.subTest(words):
                self.broken(words, act)

    def test_the_driver_announces_what_it_sends(self) -> None:
        def act(script: Script) -> None:
            script.give(ANNOUNCE, U64.pack(5), source=DRIVER)
            header, _ = script.take(GRANT)
            if (header.source, header.destination, header.sequence) == (0, DRIVER, 0):
                script.message(0, b"hello", True, source=DRIVER)
            script.take(0xFF)

        found = self.join(Script(1, act)).receive(DRIVER)
        self.assertEqual((found.source, found.data), (DRIVER, b"hello"))

    def test_in_an_elastic_job_the_driver_has_the_mailbox_and_nobody_else_is_there(self) -> None:
        seen: List[Any] = []

        def act(script: Script) -> None:
            for number in range(3):
                script.message(number, bytes(400_000), True, source=DRIVER)
            seen.append(script.take(CREDIT))
            seen.append(script.take(DATA))
            script.take(0xFF)

        script = Script(1, act, elastic=True)
        self.addCleanup(script.end)
        comm = Comm.join(events.parse(script.event()), time.monotonic() + 20, mailbox=1_300_000)
        self.addCleanup(comm.close)
        for _ in range(3):
            self.assertEqual(len(comm.receive(DRIVER).data), 400_000)
        comm.send_to_driver(bytes(60_000))
        comm.flush()
        collectives = Collectives(comm)
        calls: List[Callable[[], Any]] = [
            collectives.barrier,
            lambda: collectives.allreduce(1),
            lambda: collectives.broadcast(b"", 0),
            lambda: collectives.gather(b""),
            lambda: collectives.allgather(b""),
            lambda: collectives.alltoall([b"", b""]),
            lambda: collectives.scatter([b"", b""]),
            lambda: collectives.allreduce_with(b"", lambda one, _: one),
            lambda: comm.send(1, b""),
        ]
        for call in calls:
            with self.assertRaisesRegex(UsageError, "elastic job, whose workers come and go and know the driver"):
                call()
        comm.close()
        script.thread.join(10)
        (credit, amount), (data, _) = seen
        self.assertEqual((credit.destination, U64.unpack(amount)[0]), (DRIVER, 800_128))
        self.assertEqual((data.destination, data.flags), (DRIVER, 7))

    def test_in_an_elastic_job_too_there_is_an_end_to_credit(self) -> None:
        def too_much(script: Script) -> None:
            script.give(DATA, U64.pack(1 << 30), FIRST, 0, source=DRIVER)
            script.take(0xFF)

        with self.assertRaisesRegex(ProtocolError, "the driver sent a message for which it had no credit"):
            self.join(Script(1, too_much, elastic=True)).receive(timeout=10)
        stranger = Script(1, lambda script: (script.message(0, b"", True), script.take(0xFF)), elastic=True)
        with self.assertRaisesRegex(ProtocolError, "names rank 1 in an elastic job"):
            self.join(stranger).receive(timeout=10)

    def test_an_unknown_frame_that_may_be_skipped_is(self) -> None:
        def act(script: Script) -> None:
            script.give(0x7F, b"abc", flags=0x80)
            script.message(0, b"after it", True)
            script.take(0xFF)

        self.assertEqual(self.join(Script(1, act)).receive().data, b"after it")

    def test_a_silent_switch_is_lost(self) -> None:
        def act(script: Script) -> None:
            script.take(0xFF)

        self.broken("was silent for 1 s", act, ConnectionLostError)

    def test_a_closed_connection_and_a_late_refusal(self) -> None:
        self.broken("was closed|failed", lambda script: script.socket.close(), ConnectionLostError)
        refusal = U32.pack(6) + U64.pack(5) + b"later"
        self.broken("refused the connection: later", lambda script: script.give(frame.REFUSED, refusal), RefusedError)

    def test_a_stranger(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def act() -> None:
            with listener.accept()[0] as connected:
                connected.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connected.recv(1000)

        threading.Thread(target=act, daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with self.assertRaisesRegex(UnreachableError, "is no lswitch switch"):
            Comm.join(events.parse({**test_handler.Events.GOOD, "switches": [address], "join_within_s": 5}), time.monotonic() + 5)


if __name__ == "__main__":
    unittest.main()
