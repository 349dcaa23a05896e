"""The driver's process: `lswitch invoke pool`, which starts workers, hands them calls and tells how they ended.

What goes over its standard input and output is in docs/FARM.md.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO, Dict, List, Mapping, Optional, Tuple

from . import function
from .errors import LswitchError, UsageError

# Of what the driver writes: settled, the job's id, how many workers there are, why one was lost
SETTLED, CREATED, WORKERS, LOST = range(4)

# How a call ended
DONE, FAILED, LOST_WITH_ITS_WORKER = range(3)

#: Ahead of a call: length of what follows, its number.
CALL = struct.Struct("<IQ")
#: Ahead of a settled call's result: length of what follows, kind, how it ended, how often it failed, number, microseconds.
SETTLED_HEAD = struct.Struct("<IBBIQQ")

#: The time of a worker's invocation on this machine, in seconds, after which another takes its place: Lambda's most.
_TIMEOUT_S = 900

#: The memory of a worker on this machine, in MB: Lambda's most, since what a process on this machine takes is its owner's affair.
_MEMORY_MB = 10240

#: The room of the pipes, in bytes, where it can be asked for.
_PIPE_LEN = 1 << 20

#: Of what the driver wrote for people, what is told when it fails.
_TAIL_LEN = 4096


class MissingBinaryError(LswitchError, FileNotFoundError):
    """There is no `lswitch` to be found."""


def find_binary(given: Optional[str]) -> str:
    """The path of `lswitch`: what was given, $LSWITCH, or the one in PATH."""
    asked = given or os.environ.get("LSWITCH")
    found = shutil.which(asked or "lswitch")
    if found is None:
        where = f"{asked!r} is no program that can be run" if asked else "there is no \"lswitch\" in PATH"
        raise MissingBinaryError(
            f"{where}; build it with \"cargo build --release\" in a checkout of lswitch, and name it by Executor(binary=...), by $LSWITCH, or put "
            "it into PATH"
        )
    return found


def function_file(environment: Mapping[str, str]) -> str:
    """The worker as a function of the local Lambda: this interpreter, with this process's modules."""
    variables = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join([_own_folder(), *function.search_path()]),
        "PYTHONUNBUFFERED": "1",
    }
    try:
        variables[function.MAIN] = function.main_module()
    except function.NoNameError:
        # It matters when a function of the script is called, and is told then.
        pass
    for name in ("HOME", "LANG", "LC_ALL", "TMPDIR"):
        if name in os.environ:
            variables[name] = os.environ[name]
    variables.update(environment)
    lines = [
        f"command = [{_text(sys.executable)}, \"-m\", \"lswitch.runtime\", \"lswitch.worker.handler\"]",
        "handler = \"lswitch.worker.handler\"",
        f"memory_mb = {_MEMORY_MB}",
        f"timeout_s = {_TIMEOUT_S}",
        f"task_root = {_text(os.getcwd())}",
        "[environment]",
        *(f"{_text(name)} = {_text(value)}" for name, value in variables.items()),
    ]
    return "\n".join(lines) + "\n"


class Driver:
    """The process, its pipes, and a folder of its own."""

    def __init__(
        self,
        binary: str,
        workers: int,
        aws_function: Optional[str],
        local_function: Optional[str],
        allow_pickle: bool,
        retries: int,
        idle_timeout: float,
        environment: Mapping[str, str],
        more: List[str],
    ) -> None:
        # Not one that is cleared before the program ends: calls may still be under way then.
        self._folder, self._lock = _make_folder()
        command = [binary, "invoke", "pool", "--workers", str(workers), "--retries", str(retries)]
        command += ["--idle-timeout", f"{idle_timeout:f}"]
        own = dict(os.environ)
        if aws_function is not None:
            command += ["--function", aws_function]
        else:
            if local_function is None:
                local_function = str(Path(self._folder, "python.toml"))
                Path(local_function).write_text(function_file(environment))
            command += ["--local-function", local_function]
            own.pop("LSWITCH_FUNCTION", None)
            if not any(argument.startswith("--store") for argument in more) and not own.get("LSWITCH_STORE"):
                command += ["--store", self._folder]
        if allow_pickle:
            command.append("--allow-pickle")
        command += more
        self._words: BinaryIO = open(Path(self._folder, "stderr"), "w+b")
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, env=own, bufsize=0
            )
        except OSError as error:
            self.clean_up()
            raise MissingBinaryError(f"cannot start {binary}: {error}") from error
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stdin = self.process.stdin.fileno()
        self.stdout = self.process.stdout.fileno()
        for pipe in (self.stdin, self.stdout):
            _widen(pipe)

    def close_stdin(self) -> None:
        """No more calls come."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except OSError:
            pass

    def end(self) -> int:
        """Waits for it, which has closed its output; gives its exit code."""
        self.close_stdin()
        code = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def words(self) -> str:
        """The last of what it wrote for people."""
        try:
            length = self._words.seek(0, os.SEEK_END)
            self._words.seek(max(0, length - _TAIL_LEN))
            return self._words.read().decode("utf-8", "replace").strip()
        except (OSError, ValueError):
            return ""

    def clean_up(self) -> None:
        self._words.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            # Not before the folder is gone: without an owner it is anybody's to remove.
            os.close(self._lock)
            self._lock = None


def _make_folder() -> Tuple[str, Optional[int]]:
    """A temporary folder, and the open file in it that is locked as long as this process lives.

    A folder whose file can be locked belongs to a process that is gone: the next local run, and `lswitch clean`, remove it.
    """
    while True:
        folder = tempfile.mkdtemp(prefix="lswitch-executor-")
        path = os.path.join(folder, ".lock")
        try:
            import fcntl

            lock = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)
        except (ImportError, FileNotFoundError):
            # A system without such locks, on which nothing removes folders either; or one that was removed just now.
            if os.path.isdir(folder):
                return folder, None
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                return folder, lock
        except FileNotFoundError:
            pass
        except BlockingIOError:
            pass
        except OSError:
            # A file system without locks.
            return folder, lock
        # Another run took it for one without an owner, before it was locked.
        os.close(lock)


def _own_folder() -> str:
    """Where this package lies."""
    return str(Path(__file__).resolve().parent.parent)


def _text(value: str) -> str:
    """A string as TOML has it, which JSON's are too."""
    if "\x7f" in value:
        raise UsageError(f"{value!r} cannot stand in a function's file")
    return json.dumps(value, ensure_ascii=False)


def _widen(pipe: int) -> None:
    """Where it can be done, so that neither side waits for the other's turn."""
    try:
        import fcntl

        fcntl.fcntl(pipe, getattr(fcntl, "F_SETPIPE_SZ", 1031), _PIPE_LEN)
    except (ImportError, OSError):
        pass
