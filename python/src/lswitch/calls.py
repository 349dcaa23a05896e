"""The calls of an executor: those that wait here, those that the driver has, and what became of them.

A thread that submits hands its call to the driver's pipe itself while few are under way. When there are more, calls gather until they
are worth a write, or until the writing thread comes to it. One thread reads what the driver says; who reads never writes, since the driver
might wait for him to read.

To wake the reading thread, and that in turn whoever waits for a result, costs as much as the rest of a short call. So a thread
that waits for the result of a lone call reads itself, and the reading thread steps back while that happens again and again.
"""

from __future__ import annotations

import atexit
import os
import queue
import select
import threading
import time
from collections import deque
from concurrent.futures import BrokenExecutor
from typing import Deque, Dict, List, Optional, Set, Tuple

from . import call as envelope
from . import failure
from .driver import CALL, DONE, FAILED, LOST, SETTLED, SETTLED_HEAD, WORKERS, Driver
from .errors import WorkerLostError
from .frame import U32
from .future import CallFuture, Outcome, settle

#: What the driver is given at most, in calls and in bytes.
_CALLS_MAX = 100_000
_BYTES_MAX = 64 << 20

#: The work that the driver should have for each worker, in seconds: what waits here can be cancelled.
_AHEAD_S = 0.1

#: Calls for each worker before it is known how long they take.
_AHEAD_AT_FIRST = 256

#: So many calls for each worker are always handed over.
_AHEAD_MIN = 4

#: Bytes of calls that are worth a write.
_GATHERED_MAX = 16 * 1024

#: Bytes that one read asks for.
_READ_LEN = 1 << 20

#: The weight of the last calls in the mean of what calls take.
_RECENT = 0.2

#: After how long without anybody who reads for himself the reading thread comes back, in seconds.
_STEP_BACK_S = 0.005

#: What is written at once, in bytes.
_WRITE_LEN = 1 << 20

_open: Set["Calls"] = set()


class Calls:
    """See the module. It lives on its threads until `shut` or `kill`, or until the driver ends."""

    def __init__(self, driver: Driver, workers: int, allow_pickle: bool) -> None:
        self._driver = driver
        self._workers = workers
        self._allow_pickle = allow_pickle
        self.lock = threading.Lock()
        self._next_number = 0
        #: What the driver has not been given, which may be cancelled.
        self._waiting: Deque[Tuple[CallFuture, bytes]] = deque()
        self._flying: Dict[int, CallFuture] = {}
        self._flying_bytes = 0
        self._limit = _AHEAD_AT_FIRST * workers
        self._mean_s: Optional[float] = None
        #: What is to be written, and is somebody at it?
        self._gathered: List[bytes] = []
        self._gathered_bytes = 0
        self._writing = False
        self._kicked = False
        self._kicks: "queue.SimpleQueue[None]" = queue.SimpleQueue()
        #: Held by who reads; the bell calls the reading thread back.
        self._reading = threading.Lock()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._stepped_back = False
        #: The thread that takes in what was read, and calls back whoever asked for it.
        self._reads = 0
        #: What was read, in a place of its own: a new one for each read would cost more than the read.
        self._buffer = bytearray(_READ_LEN)
        self._view = memoryview(self._buffer)
        #: What came of a frame that is not whole, its length so far, and how long it must be for a look at it: long results come in many reads.
        self._pieces: List[bytes] = []
        self._held = 0
        self._due = 0
        #: How often others have read, and are there any who wait for the reading thread to do it?
        self._led = 0
        self._asked = False
        self._poller = select.poll()
        self._poller.register(driver.stdout, select.POLLIN)
        self._shut = False
        self._killed = False
        self._ended = False
        self._broken: Optional[str] = None
        self._misread: Optional[str] = None
        #: How many workers are there now.
        self.workers = 0
        #: Workers that were lost, and why the last was.
        self.lost = 0
        self.last_lost = ""
        self._writer = threading.Thread(target=self._write_on, name="lswitch executor, writing", daemon=True)
        self.reader = threading.Thread(target=self._read_on, name="lswitch executor", daemon=True)
        _open.add(self)
        self._writer.start()
        self.reader.start()

    def submit(self, future: CallFuture, payload: bytes) -> None:
        """Hands a call to the driver, or lets it wait for its turn.

        Raises BrokenExecutor, or RuntimeError after `shut`.
        """
        with self.lock:
            if self._broken is not None:
                raise BrokenExecutor(self._broken)
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            flying = len(self._flying)
            length = future.length
            if self._waiting or flying >= self._limit or self._flying_bytes + length > _BYTES_MAX and flying:
                self._waiting.append((future, payload))
                return
            self._take_off(future, payload)
            if self._writing:
                # Who writes takes it along.
                return
            if flying >= 2 * self._workers and self._gathered_bytes < _GATHERED_MAX or self._reads == threading.get_ident():
                self._kick()
                return
            self._writing = True
        self._write()

    def shut(self, cancel: bool = False) -> None:
        """Takes no more calls; the driver ends when it has answered all. With `cancel` what waits here is dropped."""
        with self.lock:
            self._shut = True
            waiting = list(self._waiting) if cancel else []
            self._kick()
        for future, _ in waiting:
            future.cancel()
        with self.lock:
            self._hand_over()
            self._kick()

    def kill(self) -> None:
        """Ends the driver, and with it what is under way."""
        with self.lock:
            self._shut = self._killed = True
            waiting = list(self._waiting)
        for future, _ in waiting:
            future.cancel()
        self._driver.process.terminate()

    def unsettled(self) -> int:
        with self.lock:
            return len(self._flying) + len(self._waiting)

    def _kick(self) -> None:
        """Wakes the writing thread; the lock is held."""
        if not self._kicked:
            self._kicked = True
            self._kicks.put(None)

    def _hand_over(self) -> None:
        """Gives the driver what has waited for its turn; the lock is held."""
        waiting, flying = self._waiting, self._flying
        while waiting:
            future, payload = waiting[0]
            if future.waits():
                if flying and (len(flying) >= self._limit or self._flying_bytes + future.length > _BYTES_MAX):
                    return
                self._take_off(future, payload)
            waiting.popleft()

    def _take_off(self, future: CallFuture, payload: bytes) -> None:
        """Puts a call among those that are written next; the lock is held."""
        future.handed_over()
        number = self._next_number
        self._next_number = number + 1
        self._flying[number] = future
        length = future.length
        self._flying_bytes += length
        self._gathered.append(CALL.pack(8 + length, number))
        self._gathered.append(payload)
        self._gathered_bytes += length

    def _write(self) -> None:
        """Writes what has gathered, until nothing is left. The caller has set `_writing`."""
        while True:
            with self.lock:
                gathered = self._gathered
                if not gathered:
                    self._writing = False
                    if self._shut:
                        self._kick()
                    return
                self._gathered = []
                self._gathered_bytes = 0
            try:
                rest = memoryview(b"".join(gathered))
                while rest:
                    rest = rest[os.write(self._driver.stdin, rest[:_WRITE_LEN]) :]
            except OSError:
                # The driver is gone: whoever reads finds it out too, and says why.
                with self.lock:
                    self._gathered = []
                    self._writing = False
                    if self._shut:
                        self._kick()
                return

    def _write_on(self) -> None:
        while True:
            self._kicks.get()
            with self.lock:
                self._kicked = False
                if self._ended:
                    return
                if self._writing:
                    continue
                if self._shut and not self._waiting and not self._flying:
                    # All that was submitted is answered.
                    break
                self._writing = True
            self._write()
        self._driver.close_stdin()

    def read_for(self, future: CallFuture, end: Optional[float]) -> None:
        """Reads in place of the reading thread until this call is settled, or until `end`; returns at once if that thread reads."""
        if not self._stepped_back or not self._reading.acquire(blocking=False):
            self._asked = True
            return
        try:
            while not future.done():
                self._led += 1
                if end is not None:
                    left = end - time.monotonic()
                    if left <= 0 or not self._poller.poll(1000 * left):
                        break
                if not self._read():
                    # The reading thread finds the end too.
                    break
        finally:
            self._reading.release()
        if self._flying or self._ended or not future.done():
            self.call_back()

    def call_back(self) -> None:
        """Somebody waits who does not read himself."""
        if self._stepped_back:
            self._stepped_back = False
            try:
                self._bell.release()
            except RuntimeError:
                # Another has rung.
                pass

    def _read_on(self) -> None:
        try:
            while True:
                with self._reading:
                    if not self._read():
                        break
                if self._asked and not self._flying:
                    # Who waited for the last call may wait for the next one too.
                    self._asked = False
                    led = -1
                    self._stepped_back = True
                    while led != self._led and self._stepped_back:
                        led = self._led
                        self._bell.acquire(timeout=_STEP_BACK_S)
                    self._stepped_back = False
        except Exception as error:
            self._end(f"the executor's reading thread failed: {error!r}")
            return
        self._end(self._misread)

    def _read(self) -> bool:
        """Reads once. False at the end. The reading lock is held."""
        count = os.readv(self._driver.stdout, (self._buffer,))
        if not count:
            return False
        self._reads = threading.get_ident()
        try:
            data = self._view[:count]
            if self._pieces:
                self._pieces.append(bytes(data))
                self._held += count
                if self._held < self._due:
                    return True
                data = memoryview(b"".join(self._pieces))
            rest = self._take_in(data)
            self._pieces = [rest] if rest else []
            self._held = len(rest)
            self._due = int.from_bytes(rest[:4], "little") + 4 if len(rest) >= 4 else 5
        except BaseException as error:
            # What was read is lost.
            self._misread = f"what the driver said was not taken in: {error!r}"
            raise
        finally:
            self._reads = 0
        return self._misread is None

    def _take_in(self, data: memoryview) -> bytes:
        """Settles the calls of the whole frames; gives what is left."""
        at, end = 0, len(data)
        head, head_len = SETTLED_HEAD.unpack_from, SETTLED_HEAD.size
        flying = self._flying
        settled: List[Tuple[CallFuture, int, int, bytes]] = []
        took = 0
        count = 0
        while end - at >= 5:
            length = int.from_bytes(data[at : at + 4], "little") + 4
            if end - at < length:
                break
            kind = data[at + 4]
            if kind == SETTLED:
                _, _, how, failures, number, micros = head(data, at)
                payload = bytes(data[at + head_len : at + length]) if length > head_len else b""
                settled.append((flying[number], how, failures, payload))
                # Only this thread takes calls out.
                del flying[number]
                took += micros
                count += 1
            elif kind == WORKERS:
                (self.workers,) = U32.unpack_from(data, at + 5)
            elif kind == LOST:
                self.lost += 1
                self.last_lost = bytes(data[at + 5 : at + length]).decode("utf-8", "replace")
            at += length
        if settled:
            self._account(settled, took / count / 1e6)
            settle([self._outcome(*one) for one in settled])
        return bytes(data[at:])

    def _account(self, settled: List[Tuple[CallFuture, int, int, bytes]], took_s: float) -> None:
        mean_s = took_s if self._mean_s is None else self._mean_s + (took_s - self._mean_s) * _RECENT
        self._mean_s = mean_s
        limit = int(self._workers * min(_AHEAD_S / (mean_s + 1e-7), _CALLS_MAX))
        length = 0
        for one in settled:
            length += one[0].length
        with self.lock:
            self._flying_bytes -= length
            self._limit = min(_CALLS_MAX, max(_AHEAD_MIN * self._workers, limit))
            if self._waiting:
                self._hand_over()
            if self._gathered or self._shut:
                self._kick()

    def _outcome(self, future: CallFuture, how: int, failures: int, payload: bytes) -> Outcome:
        try:
            if how == DONE:
                if not future.several:
                    return future, envelope.read_result(payload, self._allow_pickle) if payload else None, None
                return future, (envelope.read_results(payload, self._allow_pickle), None), None
            if how == FAILED:
                error, before = envelope.read_failed(payload)
                found = failure.unpack(error, self._allow_pickle)
                if not future.several:
                    return future, None, found
                return future, (envelope.read_results(before, self._allow_pickle), found), None
            words = payload.decode("utf-8", "replace")
            return future, None, WorkerLostError(f"the call was given up after it lost {failures} workers; of the last: {words}")
        except Exception as error:
            return future, None, error

    def _end(self, why: Optional[str]) -> None:
        """The driver has ended: nothing that it has not answered will be."""
        if why is not None:
            self._driver.process.kill()
        code = self._driver.end()
        with self.lock:
            self._ended = True
            left = [*self._flying.values(), *(future for future, _ in self._waiting)]
            if why is None:
                words = self._driver.words()
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                why = f"lswitch invoke pool ended with {how}"
                if self._killed:
                    why = "the executor was terminated"
                elif words:
                    why += f": {words}"
            if left or not self._shut:
                self._broken = why
            self._flying.clear()
            self._waiting.clear()
            self._kick()
            for future in left:
                if future.waits():
                    future.handed_over()
        settle([(future, None, BrokenExecutor(why)) for future in left if not future.done()])
        self._driver.clean_up()
        _open.discard(self)


def _at_exit() -> None:
    """As the executors of the standard library: what was submitted is done before the program ends."""
    for calls in list(_open):
        calls.shut()
    for calls in list(_open):
        calls.reader.join()


atexit.register(_at_exit)
