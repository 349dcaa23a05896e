"""Another user of the machine, played by uid 65534, at an idle executor. It takes root to play one."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import List, Optional, Set

from support import NEEDS_BINARY

from lswitch import Executor

STRANGER = 65534

REQUEST = b"POST /2015-03-31/functions/%s/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"

CLIENT = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
connection.sendall(sys.stdin.buffer.read())
while True:
    part = connection.recv(65536)
    if not part:
        break
    sys.stdout.buffer.write(part)
"""


def python_of_strangers() -> Optional[str]:
    """A Python that other users may run; an environment below /root is not."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return None
    for python in ("/usr/bin/python3", "/usr/local/bin/python3", sys.executable):
        try:
            subprocess.run([python, "-I", "-c", "pass"], preexec_fn=become_stranger, cwd="/", check=True, stderr=subprocess.DEVNULL)
            return python
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def become_stranger() -> None:
    os.setgroups([])
    os.setgid(STRANGER)
    os.setuid(STRANGER)


def ask(python: str, port: int, request: bytes, stranger: bool) -> bytes:
    done = subprocess.run(
        [python, "-I", "-c", CLIENT, str(port)],
        input=request,
        stdout=subprocess.PIPE,
        cwd="/",
        timeout=60,
        preexec_fn=become_stranger if stranger else None,
    )
    return done.stdout


def children(pid: int) -> List[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def listening(pid: int) -> Set[int]:
    """The ports at which a process listens."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))
        except OSError:
            continue
        if match:
            inodes.add(match.group(1))
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and row[9] in inodes}


@NEEDS_BINARY
class Users(unittest.TestCase):
    def apis(self, python: str, driver: int, count: int) -> List[int]:
        """The ports at which a driver's local Lambda serves this user, as soon as there are so many."""
        end = time.monotonic() + 30
        while True:
            ports = [port for port in listening(driver) if ask(python, port, REQUEST % b"none", False).startswith(b"HTTP/1.1 404")]
            if len(ports) >= count:
                return ports
            self.assertLess(time.monotonic(), end, f"{count} APIs were expected, and there are {ports}")

    def test_an_idle_executor_serves_its_own_user_alone(self) -> None:
        python = python_of_strangers()
        if python is None:
            self.skipTest("only root can play another user, with a Python that others may run")
        for was_called in (False, True):
            before = set(children(os.getpid()))
            with Executor(1) as executor:
                if was_called:
                    self.assertEqual(executor.submit(math.sqrt, 16).result(timeout=60), 4)
                driver, *more = set(children(os.getpid())) - before
                self.assertEqual(more, [])
                # Both APIs, once there is a worker.
                ports = self.apis(python, driver, 2 if was_called else 1)
                for port in ports:
                    for function in (b"none", b"python", b"lswitch"):
                        answer = ask(python, port, REQUEST % function, True)
                        self.assertIn(b"HTTP/1.1 403 Forbidden", answer)
                        self.assertIn(b"uid 65534", answer)


if __name__ == "__main__":
    unittest.main()
