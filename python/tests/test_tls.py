"""Ranks that speak TLS with their switches, whose certificates their addresses name."""

from __future__ import annotations

import socket
import threading
import time
import unittest

from support import NEEDS_BINARY, OnASwitch, Switch

import lswitch
from lswitch import address as addresses, event as events
from lswitch.comm import Comm
from lswitch.errors import EventError, RefusedError, UnreachableError

PIN = "ab" * 32


class Addresses(unittest.TestCase):
    def test_an_address_is_taken_apart(self) -> None:
        known = addresses.parse(f"10.0.0.5:7000#{PIN}")
        self.assertEqual((known.place, known.pin, known.host_and_port()), ("10.0.0.5:7000", b"\xab" * 32, ("10.0.0.5", 7000)))
        self.assertEqual(addresses.parse(f"h:1#{PIN.upper()}").pin, b"\xab" * 32)
        self.assertEqual(addresses.parse("[::1]:7000"), ("[::1]:7000", None))

    def test_what_is_no_fingerprint_is_refused(self) -> None:
        for text in ["h:1#", "h:1#00", f"h:1#{PIN}0", f"h:1#{PIN[:-1]}x", f"h:1# {PIN[:-1]}", f"h:1#{PIN}#"]:
            with self.assertRaisesRegex(EventError, "64 hexadecimal digits"):
                addresses.parse(text)


@NEEDS_BINARY
class Sealed(OnASwitch):
    MORE = ("--tls",)

    def test_messages_of_all_lengths_come_whole(self) -> None:
        lengths = [0, 1, 64, 16383, 16384, 16385, 65536, 65537, 200_000, 1 << 20, 20 << 20]

        def program(job: lswitch.Job) -> None:
            for number, length in enumerate(lengths):
                pattern = bytes((number + at * 7) % 251 for at in range(min(length, 4099)))
                whole = (pattern * (length // max(1, len(pattern)) + 1))[:length]
                for sender in (0, 1):
                    if job.rank == sender:
                        job.comm.send(1 - sender, whole, tag=number)
                    else:
                        self.assertTrue(job.comm.receive(sender, tag=number).data == whole, f"{length} bytes")

        self.run_ranks(2, program)

    def test_many_short_messages_and_collectives(self) -> None:
        def program(job: lswitch.Job) -> object:
            for number in range(2000):
                job.comm.send((job.rank + 1) % job.size, number.to_bytes(4, "little"))
            numbers = [int.from_bytes(job.comm.receive().data, "little") for _ in range(2000)]
            job.barrier()
            return numbers == list(range(2000)), sum(job.allgather(job.rank)), job.counter("of all").add(1) > 0

        self.assertEqual(self.run_ranks(4, program), [(True, 6, True)] * 4)

    def test_a_rank_that_computes_keeps_its_connection(self) -> None:
        def program(job: lswitch.Job) -> object:
            if job.rank == 0:
                # Longer than the tick of the keeper, which reads and writes meanwhile.
                until = time.monotonic() + 3
                while time.monotonic() < until:
                    pass
            else:
                for number in range(100):
                    job.comm.send(0, bytes(10_000), tag=number)
            job.barrier()
            return [len(job.comm.receive(1, number).data) for number in range(100)] if job.rank == 0 else None

        self.assertEqual(self.run_ranks(2, program)[0], [10_000] * 100)

    def test_another_certificate_is_not_taken(self) -> None:
        driver = self.drive(1)
        place = self.switches[0].address.partition("#")[0]
        parsed = events.parse({**driver.event(0), "switches": [f"{place}#{PIN}"]})
        with self.assertRaisesRegex(UnreachableError, "another certificate than its address names"):
            Comm.join(parsed, time.monotonic() + 10)

    def test_a_client_without_tls_is_told(self) -> None:
        driver = self.drive(1)
        place = self.switches[0].address.partition("#")[0]
        parsed = events.parse({**driver.event(0), "switches": [place]})
        with self.assertRaisesRegex(RefusedError, "this switch speaks TLS"):
            Comm.join(parsed, time.monotonic() + 10)

    def test_a_switch_without_tls_is_told_from_one_with(self) -> None:
        driver = self.drive(1)
        plain = Switch()
        self.addCleanup(plain.stop)
        parsed = events.parse({**driver.event(0), "switches": [f"{plain.address}#{PIN}"]})
        with self.assertRaisesRegex(UnreachableError, "speaks plain TCP"):
            Comm.join(parsed, time.monotonic() + 10)

    def test_a_switch_that_is_gone_is_noticed_at_once(self) -> None:
        switch = Switch(None, "--tls")
        self.addCleanup(switch.stop)
        switches, self.switches = self.switches, [switch]
        try:
            with self.assertRaises(lswitch.LswitchError):
                driver = self.drive(1)
                with Comm.join(events.parse(driver.event(0)), time.monotonic() + 10) as comm:
                    threading.Timer(0.3, switch.kill).start()
                    begun = time.monotonic()
                    comm.receive(None)
        finally:
            self.switches = switches
        self.assertLess(time.monotonic() - begun, 5)


@NEEDS_BINARY
class OverTwo(OnASwitch):
    COUNT = 2
    MORE = ("--tls",)

    def test_a_job_over_two_switches(self) -> None:
        def program(job: lswitch.Job) -> object:
            for to in range(job.size):
                job.comm.send(to, bytes([job.rank]) * 100_000)
            found = sorted(job.comm.receive(source).data[0] for source in range(job.size))
            return found, sum(job.allgather(job.rank))

        self.assertEqual(self.run_ranks(4, program), [([0, 1, 2, 3], 6)] * 4)


class Silence(unittest.TestCase):
    def test_a_stranger_that_says_nothing_is_not_waited_for_long(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        from lswitch import tls

        connected = socket.create_connection(listener.getsockname(), timeout=0.5)
        begun = time.monotonic()
        with self.assertRaisesRegex(UnreachableError, "no TLS with what listens"):
            tls.seal(connected, "there", bytes(32))
        self.assertLess(time.monotonic() - begun, 3)


if __name__ == "__main__":
    unittest.main()
