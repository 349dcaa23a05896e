"""A switch for a test, and a driver in this process that starts ranks as threads."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from lswitch import address as addresses, codec, event as events, tls  # noqa: E402
from lswitch.comm import Comm  # noqa: E402
from lswitch.frame import ABORT, ANNOUNCE, DATA, DRIVER, END, GRANT, HEADER, HEARTBEAT, HELLO, LEAVE  # noqa: E402
from lswitch.frame import LEFT, NOTICE, PREAMBLE, REFUSED, WELCOME, chunk_parts, control  # noqa: E402
from lswitch.job import Job  # noqa: E402
from lswitch.release import RELEASE  # noqa: E402
from lswitch.wire import Wire  # noqa: E402

BINARY = os.environ.get("LSWITCH", "")
NEEDS_BINARY = unittest.skipUnless(BINARY, "set LSWITCH to the path of an lswitch binary to run this test")

#: A hang ends here, with a message.
PATIENCE_S = 60.0

DRIVER_MAILBOX = 64 << 20


class Switch:
    """`lswitch serve` at a free port, with a home of its own."""

    def __init__(self, home: Optional[str] = None, *more: str) -> None:
        self._owns_home = home is None
        self.home = home or tempfile.mkdtemp(prefix="lswitch-python-")
        environment = {**os.environ, "LSWITCH_HOME": self.home}
        self.process = subprocess.Popen(
            [BINARY, "serve", "--listen", "127.0.0.1:0", "--json", "--quiet", *more],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        told = json.loads(line)
        self.address: str = told["switch"]
        self.secret = Path(self.home, "secret").read_bytes().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self._owns_home:
            shutil.rmtree(self.home, ignore_errors=True)


def job_key(secret: bytes, job: bytes) -> bytes:
    return hmac.new(secret, b"lswitch job" + job, hashlib.sha256).digest()


def driver_code(key: bytes, expiry: int) -> bytes:
    return hmac.new(key, b"driver" + expiry.to_bytes(8, "little"), hashlib.sha256).digest()


def pack_code(key: bytes, first: int, ranks: int, incarnation: int, expiry: int) -> bytes:
    words = b"".join(number.to_bytes(4, "little") for number in (first, ranks, incarnation))
    return hmac.new(key, b"pack" + words + expiry.to_bytes(8, "little"), hashlib.sha256).digest()


class Driver:
    """The driver of one job, over one or more switches. Takes results, and grants whatever is announced to it."""

    def __init__(self, switches: List[Switch], size: int, features: int = 1) -> None:
        self.switches = switches
        self.size = size
        self.job = os.urandom(16)
        self.expiry = int(time.time()) + 600
        self.key = job_key(switches[0].secret, self.job)
        self.results: Dict[int, bytes] = {}
        self.progress: List[Tuple[int, bytes]] = []
        self.usage: List[Tuple[int, bytes]] = []
        self.failures: Dict[int, str] = {}
        self.lost: List[str] = []
        self.ended: Optional[str] = None
        self._parts: Dict[int, bytearray] = {}
        self._stop = False
        self.wires: List[Wire] = []
        role = codec.driver_role(size, DRIVER_MAILBOX)
        hello = codec.hello(features, RELEASE, self.job, self.expiry, driver_code(self.key, self.expiry), role)
        for number, switch in enumerate(switches):
            place, pin = known = addresses.parse(switch.address)
            connected = socket.create_connection(known.host_and_port(), timeout=5)
            wire = Wire(connected if pin is None else tls.seal(connected, place, pin), place, number)
            wire.push(PREAMBLE + control(HELLO, hello))
            wire.flush()
            self.wires.append(wire)
            self._greet(wire)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def event(self, rank: int, **more: Any) -> Dict[str, Any]:
        return {
            "version": 1,
            "release": RELEASE,
            "job": self.job.hex(),
            "switches": [switch.address for switch in self.switches],
            "token": {"expiry_s": self.expiry, "code": pack_code(self.key, rank, more.get("ranks", 1), 1, self.expiry).hex()},
            "first_rank": rank,
            "ranks": 1,
            "size": self.size,
            "epoch": 0,
            "incarnation": 1,
            "join_within_s": 20,
            "program": "python",
            "arguments": None,
            "store": "file:///tmp",
            **more,
        }

    def abort(self, reason: str) -> None:
        with self._lock:
            for wire in self.wires:
                wire.push(control(ABORT, codec.put_reason(reason)))
                wire.flush()

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        for wire in self.wires:
            wire.close()

    def _greet(self, wire: Wire) -> None:
        preamble = False
        while True:
            select.select([wire.socket], [], [], 5)
            wire.fill()
            if not preamble and wire.end >= 8:
                assert bytes(wire.view[:8]) == PREAMBLE
                wire.begin, preamble = 8, True
            frame = wire.next_frame() if preamble else None
            if frame is not None:
                assert frame[0].kind == WELCOME, codec.refused(frame[1])
                return

    def _run(self) -> None:
        beat = 0.0
        while not self._stop:
            if time.monotonic() > beat:
                beat = time.monotonic() + 0.25
                with self._lock:
                    for wire in self.wires:
                        wire.push(control(HEARTBEAT))
            with self._lock:
                for wire in self.wires:
                    wire.flush()
            readable, _, _ = select.select([wire.socket for wire in self.wires], [], [], 0.02)
            for wire in self.wires:
                if wire.socket not in readable:
                    continue
                try:
                    wire.fill()
                except Exception as error:
                    self.lost.append(str(error))
                    return
                while True:
                    frame = wire.next_frame()
                    if frame is None:
                        break
                    self._take(wire, *frame)
        with self._lock:
            for wire in self.wires:
                wire.push(control(LEAVE, codec.leave(None)))
                wire.flush()

    def _take(self, wire: Wire, header: Any, body: memoryview) -> None:
        if header.kind == ANNOUNCE:
            grant = HEADER.pack(GRANT, 0, 0, 0, 0, DRIVER, header.source, header.sequence, 0)
            with self._lock:
                wire.push(grant)
        elif header.kind == DATA:
            _, piece, checksum = chunk_parts(header.flags, body)
            whole = self._parts.setdefault(header.source, bytearray())
            whole += piece
            if checksum >= 0:
                self._report(header.source, bytes(self._parts.pop(header.source)))
        elif header.kind == NOTICE:
            fields = codec.Fields(body, "a NOTICE")
            what = fields.u32()
            if what == 2:
                first, _, failure = fields.u32(), fields.u32(), fields.option_string()
                if failure is not None:
                    self.failures[first] = failure
            elif what == 3:
                fields.u32(), fields.u32()
                self.lost.append(fields.string())
        elif header.kind in (END, REFUSED, LEFT):
            self.ended = bytes(body).decode("utf-8", "replace")

    def _report(self, rank: int, data: bytes) -> None:
        fields = codec.Fields(data, "a report")
        if fields.u32() == 1:
            self.results[rank] = fields.bytes()
        else:
            # What it says of how far it is begins with 0, and of what it took with 2.
            (self.progress if data[0] == 0 else self.usage).append((rank, data))


class Context:
    """What Lambda gives a handler."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int(1000 * (self._end - time.monotonic())))


def in_threads(count: int, act: Callable[[int], Any]) -> List[Any]:
    """Runs `act` for each rank on a thread of its own; gives what they returned, or raises what the first raised."""
    outcomes: List[Any] = [None] * count
    errors: List[Optional[BaseException]] = [None] * count

    def run(rank: int) -> None:
        try:
            outcomes[rank] = act(rank)
        except BaseException as error:
            errors[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(count)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + PATIENCE_S
    for rank, thread in enumerate(threads):
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            raise AssertionError(f"rank {rank} hangs; errors so far: {[error for error in errors if error]}")
    for error in errors:
        if error is not None:
            raise error
    return outcomes


class OnASwitch(unittest.TestCase):
    """Tests that share a switch or several."""

    COUNT = 1
    #: Further arguments of `serve`.
    MORE: Tuple[str, ...] = ()
    switches: List[Switch]

    @classmethod
    def setUpClass(cls) -> None:
        first = Switch(None, *cls.MORE)
        cls.switches = [first, *(Switch(first.home, *cls.MORE) for _ in range(cls.COUNT - 1))]

    @classmethod
    def tearDownClass(cls) -> None:
        for switch in reversed(cls.switches):
            switch.stop()

    def drive(self, size: int) -> Driver:
        driver = Driver(self.switches, size)
        self.addCleanup(driver.close)
        return driver

    def run_ranks(self, size: int, program: Callable[[Job], Any], mailbox: int = 32 << 20, **event: Any) -> List[Any]:
        """A job whose ranks run `program` in this process."""
        driver = self.drive(size)

        def rank(number: int) -> Any:
            parsed = events.parse(driver.event(number, **event))
            with Comm.join(parsed, time.monotonic() + PATIENCE_S - 5, mailbox) as comm:
                return program(Job(comm, parsed.allow_pickle))

        return in_threads(size, rank)
