"""Nothing is left of an executor whose program ends in any way: no process, and no folder once another run has been there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Dict, List

from support import BINARY, NEEDS_BINARY, PATIENCE_S

#: Its workers start what clings most: a process in a session of its own, without a parent.
PROGRAM = """
import subprocess, sys, time
from lswitch import Executor
import leaving

with Executor(2) as executor:
    futures = [executor.submit(leaving.cling) for _ in range(2)]
    print("under way", flush=True)
    [future.result() for future in futures]
"""

LEAVING = """
import subprocess, time

def cling():
    subprocess.Popen(["sh", "-c", "setsid sh -c '(sleep 600 &) ; sleep 600' & sleep 600"])
    time.sleep(600)
"""


@NEEDS_BINARY
class Leftovers(unittest.TestCase):
    """The program's processes are found by their PATH, which all of them inherit."""

    def setUp(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lswitch-leftovers-")
        self.addCleanup(self._folder.cleanup)
        self.folder = Path(self._folder.name)
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        (self.folder / "leaving.py").write_text(LEAVING)
        self.path = os.pathsep.join([os.environ["PATH"], str(self.folder / "mark")])

    def environment(self) -> Dict[str, str]:
        source = str(Path(__file__).resolve().parent.parent / "src")
        return {
            **os.environ,
            "PATH": self.path,
            "PYTHONPATH": os.pathsep.join([source, str(self.folder)]),
            "LSWITCH": BINARY,
            "LSWITCH_HOME": str(self.folder / "home"),
            "TMPDIR": str(self.temporary),
        }

    def marked(self) -> List[int]:
        wanted = f"PATH={self.path}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                # Of a zombie, nothing.
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in variables:
                found.append(int(entry.name))
        return found

    def wait_until(self, what: str, seconds: float, count: range) -> None:
        end = time.monotonic() + seconds
        while len(self.marked()) not in count:
            self.assertLess(time.monotonic(), end, f"{what}: {self.marked()}")
            time.sleep(0.02)

    def end_with(self, number: signal.Signals) -> None:
        with self.subTest(number.name):
            program = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                env=self.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # As from a terminal, and not as from a script that ignores Ctrl-C for what runs in the background.
                start_new_session=True,
                cwd=self.folder,
            )
            self.addCleanup(program.kill)
            # The program, its driver, two supervisors, two workers, and three processes that each of them has started.
            self.wait_until("the workers do not come so far", PATIENCE_S, range(10, 100))
            program.send_signal(number)
            if number == signal.SIGINT:
                # The program waits for its calls then, as those of the standard library do; who is impatient says so again.
                time.sleep(0.3)
                program.kill()
            program.wait(PATIENCE_S)
            assert program.stdout is not None
            program.stdout.close()
            self.wait_until("processes are left", 20, range(0, 1))
            left = list(self.temporary.iterdir())
            self.assertEqual(left, [], "folders are left")

    def test_nothing_is_left_whatever_ends_the_program(self) -> None:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT):
            self.end_with(number)

    def test_nothing_is_left_when_the_driver_is_killed(self) -> None:
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
        )
        self.addCleanup(program.kill)
        self.wait_until("the workers do not come so far", PATIENCE_S, range(10, 100))
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        self.assertEqual(len(children), 1)
        os.kill(int(children[0]), signal.SIGKILL)
        self.assertNotEqual(program.wait(PATIENCE_S), 0)
        assert program.stdout is not None
        program.stdout.close()
        self.wait_until("processes are left", 20, range(0, 1))
        # The driver's own folder goes with the next run.
        run = [BINARY, "invoke", "map", "--exec", "true", "--items", "0..1", "--workers", "1"]
        subprocess.run(run, env=self.environment(), cwd=self.folder, check=True, capture_output=True)
        self.assertEqual(list(self.temporary.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
