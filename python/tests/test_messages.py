"""Messages through a switch: credit, announcements, order, ends."""

from __future__ import annotations

import threading
import time
import unittest

from support import NEEDS_BINARY, OnASwitch, Switch, in_threads, PATIENCE_S

import lswitch
from lswitch import event as events
from lswitch.comm import Comm
from lswitch.errors import ConnectionLostError, DeadlineError, ReceiveTimeout, RefusedError, UsageError


@NEEDS_BINARY
class Messages(OnASwitch):
    def test_a_message_arrives_with_its_source_and_tag(self) -> None:
        def program(job: lswitch.Job) -> object:
            job.send((job.rank + 1) % job.size, {"from": job.rank}, tag=7)
            return job.receive(tag=7)

        found = self.run_ranks(3, program)
        self.assertEqual([(one.source, one.tag, one.data) for one in found], [(2, 7, {"from": 2}), (0, 7, {"from": 0}), (1, 7, {"from": 1})])

    def test_a_message_to_oneself_arrives(self) -> None:
        def program(job: lswitch.Job) -> object:
            job.send(job.rank, "me")
            return job.receive(job.rank).data

        self.assertEqual(self.run_ranks(2, program), ["me", "me"])

    def test_receives_by_source_and_by_tag_take_what_they_name(self) -> None:
        def program(job: lswitch.Job) -> object:
            if job.rank > 0:
                for number in range(50):
                    job.comm.send(0, bytes([job.rank, number]), tag=number % 2)
                job.barrier()
                return None
            job.barrier()
            odd = [job.comm.receive(2, 1).data[1] for _ in range(25)]
            even = [job.comm.receive(1, 0).data[1] for _ in range(25)]
            rest = [job.comm.receive(None, 0).data[0] for _ in range(25)]
            last = [job.comm.receive(None, 1).data[0] for _ in range(25)]
            return odd, even, rest, last

        odd, even, rest, last = self.run_ranks(3, program)[0]
        self.assertEqual(odd, list(range(1, 50, 2)))
        self.assertEqual(even, list(range(0, 50, 2)))
        self.assertEqual((set(rest), set(last)), ({2}, {1}))

    def test_messages_of_all_lengths_come_whole(self) -> None:
        lengths = [0, 1, 63, 64, 65535, 65536, 65537, 131072, 200000, 1 << 20]

        def program(job: lswitch.Job) -> None:
            other = 1 - job.rank
            for length in lengths:
                job.comm.send(other, bytes(length % 251 for _ in range(1)) * length)
            for length in lengths:
                self.assertEqual(job.comm.receive(other).data, bytes([length % 251]) * length)

        self.run_ranks(2, program)

    def test_messages_much_larger_than_the_mailbox_are_announced(self) -> None:
        def program(job: lswitch.Job) -> None:
            data = bytes(range(256)) * 8192
            if job.rank:
                for _ in range(3):
                    job.comm.send(0, data, tag=3)
                job.comm.send(0, b"small")
            else:
                time.sleep(0.2)
                for _ in range(3):
                    self.assertEqual(job.comm.receive(1, 3).data, data)
                self.assertEqual(job.comm.receive().data, b"small")

        self.run_ranks(2, program, mailbox=4096)

    def test_a_receive_grants_what_it_waits_for_though_the_mailbox_is_full(self) -> None:
        def program(job: lswitch.Job) -> object:
            if job.rank == 0:
                job.barrier()
                return [len(job.comm.receive(source, source).data) for source in (3, 2, 1)]
            job.barrier()
            job.comm.send(0, bytes(100_000 * job.rank), tag=job.rank)
            return None

        self.assertEqual(self.run_ranks(4, program, mailbox=4096)[0], [300_000, 200_000, 100_000])

    def test_ten_thousand_small_messages_both_ways_at_once(self) -> None:
        def program(job: lswitch.Job) -> None:
            other = 1 - job.rank
            for number in range(10_000):
                job.comm.send(other, number.to_bytes(4, "little"))
            for number in range(10_000):
                self.assertEqual(int.from_bytes(job.comm.receive(other).data, "little"), number)

        self.run_ranks(2, program)

    def test_both_send_eight_mebibytes_before_they_receive(self) -> None:
        def program(job: lswitch.Job) -> None:
            data = bytes([job.rank]) * (8 << 20)
            job.comm.send(1 - job.rank, data)
            self.assertEqual(job.comm.receive(1 - job.rank).data, bytes([1 - job.rank]) * (8 << 20))

        self.run_ranks(2, program)

    def test_with_keep_all_send_first_whatever_the_lengths(self) -> None:
        def program(job: lswitch.Job) -> None:
            others = [rank for rank in job.peers if rank != job.rank]
            for _ in range(3):
                for other in others:
                    job.comm.send(other, bytes([job.rank]) * 100_000, keep=True)
            for other in others * 3:
                self.assertEqual(job.comm.receive(other).data, bytes([other]) * 100_000)

        self.run_ranks(3, program, mailbox=4096)

    def test_many_ranks_say_and_compute_everything_at_once(self) -> None:
        import random

        def program(job: lswitch.Job) -> None:
            source = random.Random(job.rank)
            for turn in range(3):
                for other in job.peers:
                    job.comm.send(other, bytes([job.rank]) * source.randrange(20_000), tag=turn, keep=True)
                for other in job.peers:
                    self.assertLessEqual(set(job.comm.receive(other, turn).data), {other})
                self.assertEqual(job.allreduce(1), job.size)
                found = job.alltoall([[job.rank, other] for other in job.peers])
                self.assertEqual(found, [[other, job.rank] for other in job.peers])

        self.run_ranks(8, program, mailbox=1 << 16)

    def test_what_nobody_receives_does_not_hold_up_who_sent_it(self) -> None:
        def program(job: lswitch.Job) -> None:
            if job.rank:
                for _ in range(20):
                    job.comm.send(0, bytes(3000))
                job.comm.send(0, bytes(100_000))

        self.run_ranks(3, program, mailbox=8192)

    def test_a_rank_that_computes_still_takes_messages_in_and_lives(self) -> None:
        def program(job: lswitch.Job) -> object:
            if job.rank:
                job.comm.send(0, b"while you compute")
                return None
            end = time.monotonic() + 12
            while time.monotonic() < end:
                sum(range(10_000))
            return job.comm.receive(timeout=0).data

        self.assertEqual(self.run_ranks(2, program)[0], b"while you compute")

    def test_a_receive_with_a_timeout_ends_and_may_be_made_again(self) -> None:
        def program(job: lswitch.Job) -> object:
            if job.rank == 0:
                with self.assertRaisesRegex(ReceiveTimeout, "rank 0 waited in vain for a message with tag 4 from rank 1"):
                    job.receive(1, 4, timeout=0.05)
                job.barrier()
                return job.receive(1, 4, timeout=10).data
            job.barrier()
            job.send(0, "now", tag=4)
            return None

        self.assertEqual(self.run_ranks(2, program)[0], "now")

    def test_a_wait_ends_at_the_deadline_and_names_whom_it_waited_for(self) -> None:
        def program(job: lswitch.Job) -> None:
            if job.rank == 0:
                job.comm.deadline = time.monotonic() + 0.2
                with self.assertRaisesRegex(DeadlineError, "rank 0 waited for a message with tag 9 from any rank until its"):
                    job.receive(tag=9)
                job.comm.deadline = time.monotonic() + 20

        self.run_ranks(2, program)

    def test_a_send_ends_at_the_deadline_and_names_whom_it_waited_for(self) -> None:
        def program(job: lswitch.Job) -> None:
            if job.rank == 0:
                job.comm.deadline = time.monotonic() + 0.3
                with self.assertRaisesRegex(DeadlineError, "for rank 1 to receive a message of 10000 bytes with tag 0"):
                    job.comm.send(1, bytes(10_000))
                job.comm.deadline = time.monotonic() + 20
                job.comm.send(2, b"done")
            elif job.rank == 1:
                job.comm.send(2, bytes(10_000))
            else:
                # Rank 1 has granted nothing: it waits for rank 2.
                self.assertEqual(job.comm.receive(0).data, b"done")
                job.comm.receive(1)

        self.run_ranks(3, program, mailbox=4096)

    def test_usage_errors_say_what_was_wrong(self) -> None:
        def program(job: lswitch.Job) -> None:
            with self.assertRaisesRegex(UsageError, "rank 0 sent to rank 5 of a job of 1 ranks"):
                job.send(5, 1)
            with self.assertRaisesRegex(UsageError, "raw bytes"):
                job.comm.send(0, "text")  # type: ignore[arg-type]
            with self.assertRaisesRegex(UsageError, "tags are from 0"):
                job.comm.send_to_driver(b"", tag=-1)

        self.run_ranks(1, program)

    def test_a_wrong_token_is_refused_with_the_switchs_reason(self) -> None:
        driver = self.drive(1)
        event = driver.event(0)
        event["token"]["code"] = "00" * 32
        with self.assertRaisesRegex(RefusedError, "token") as caught:
            Comm.join(events.parse(event), time.monotonic() + 5)
        self.assertEqual((caught.exception.code, type(caught.exception).__name__), (2, "Lswitch.Refused"))

    def test_a_job_that_is_not_complete_in_time_says_so(self) -> None:
        driver = self.drive(2)
        with self.assertRaisesRegex(ConnectionLostError, "did not start within 1 s: not all of its ranks"):
            Comm.join(events.parse(driver.event(0, join_within_s=1)), time.monotonic() + 30)

    def test_nothing_listens_there(self) -> None:
        driver = self.drive(1)
        event = driver.event(0, switches=["127.0.0.1:1"], join_within_s=1)
        with self.assertRaisesRegex(lswitch.UnreachableError, "cannot reach the switch at 127.0.0.1:1 .*lswitch serve"):
            Comm.join(events.parse(event), time.monotonic() + 30)

    def test_an_aborted_job_ends_every_wait_with_the_reason(self) -> None:
        driver = self.drive(2)

        def rank(number: int) -> None:
            comm = Comm.join(events.parse(driver.event(number)), time.monotonic() + 30)
            if number == 0:
                driver.abort("enough of it")
            with self.assertRaisesRegex(ConnectionLostError, "the job was ended: .*enough of it"):
                comm.receive()
            with self.assertRaisesRegex(ConnectionLostError, "enough of it"):
                comm.send(1 - number, b"")
            comm.close()

        in_threads(2, rank)

    def test_leaving_joins_all_threads(self) -> None:
        def threads() -> int:
            return sum("lswitch" in thread.name for thread in threading.enumerate())

        self.run_ranks(2, lambda job: job.barrier())
        self.assertEqual(threads(), 0)


@NEEDS_BINARY
class Dying(unittest.TestCase):
    def test_a_switch_that_dies_is_an_error_and_not_a_hang(self) -> None:
        from support import Driver

        switch = Switch()
        driver = Driver([switch], 2)

        def rank(number: int) -> None:
            comm = Comm.join(events.parse(driver.event(number)), time.monotonic() + PATIENCE_S)
            if number == 0:
                switch.kill()
            with self.assertRaisesRegex(ConnectionLostError, "the connection to the switch at"):
                while True:
                    if number == 0:
                        comm.receive()
                    else:
                        comm.send(0, bytes(1000))
            with self.assertRaises(ConnectionLostError):
                comm.leave()

        in_threads(2, rank)
        driver.close()
        switch.stop()


if __name__ == "__main__":
    unittest.main()
