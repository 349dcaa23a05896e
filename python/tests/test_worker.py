"""The worker and the runtime, in this process and as functions of `lswitch invoke`."""

from __future__ import annotations

import http.server
import importlib.util
import itertools
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, Dict, List, Tuple

from support import BINARY, NEEDS_BINARY

import calling  # noqa: F401
from lswitch import farm
from lswitch.call import EACH, FOLD, JSON, NOTHING, ONE, REDUCE, TREE, arguments, head, items, read_failed, read_result, read_results
from lswitch.chunks import sizes
from lswitch.errors import LswitchError, MessageError, ProtocolError
from lswitch.failure import RemoteError, pack, unpack
from lswitch.worker import Runner

HERE = Path(__file__).resolve().parent
PROGRAMS = os.environ.get("LSWITCH_PROGRAMS", "")
HAS_RIC = importlib.util.find_spec("awslambdaric") is not None


class Bytes(unittest.TestCase):
    """Calls without a wire."""

    def run_call(self, how: int, functions: List[Any], form: int, given: bytes) -> Tuple[int, bytes]:
        return Runner(False)(head(how, form, functions, None) + given)

    def test_one_call_in_each_form(self) -> None:
        cases: List[Tuple[str, Tuple[Any, ...], Dict[str, Any], int, Any]] = [
            ("calling:nothing", (), {}, NOTHING, None),
            ("calling:add", (1, 2), {}, JSON, 3),
            ("calling:add", (1,), {"third": 5}, JSON, 7),
            ("calling:add", (b"a",), {"other": b"b", "third": b"c"}, TREE, b"abc"),
            ("calling:same", ([1, {"k": "v"}],), {}, JSON, [1, {"k": "v"}]),
            ("builtins:len", (b"abc",), {}, TREE, 3),
            ("calling:same", ((1, "\ud83d\ude00"),), {}, TREE, (1, "\ud83d\ude00")),
        ]
        for name, args, kwargs, form, due in cases:
            found, given = arguments(args, kwargs, None)
            self.assertEqual(found, form)
            ending, answer = self.run_call(ONE, [name], form, given)
            self.assertEqual((ending, read_result(answer, False)), (farm.DONE, due))

    def test_several_calls_in_each_form(self) -> None:
        for given, form in (([1, 2, 3], JSON), ([b"a", 1, "x"], TREE)):
            found, data = items(EACH, given, None)
            self.assertEqual(found, form)
            ending, answer = self.run_call(EACH, ["calling:same"], form, data)
            self.assertEqual((ending, read_results(answer, False)), (farm.DONE, given))
        _, data = items(FOLD, [1, 2, 3], None)
        self.assertEqual(self.run_call(FOLD, ["calling:square", "_operator:add"], JSON, data), (farm.DONE, b"\x0114"))
        self.assertEqual(self.run_call(REDUCE, ["_operator:add"], JSON, data), (farm.DONE, b"\x016"))

    def test_a_call_that_is_none(self) -> None:
        whole = head(ONE, JSON, ["calling:add"], None) + b"[1]"
        for data in (b"", b"\0", whole[:3], whole[:10], b"\x09" + whole[1:], b"\0\x01\xff\xff\xff\xff\xff\xff", os.urandom(40)):
            ending, answer = Runner(True)(data)
            self.assertEqual(ending, farm.FAILED_FOR_GOOD, data)
            self.assertIsInstance(unpack(read_failed(answer)[0], False), Exception)
        for data in (b"", b"\x05\0\0\0a"):
            with self.assertRaises(MessageError):
                read_failed(data)

    def test_orders(self) -> None:
        self.assertEqual(farm.order(struct.pack("<IIQ", 0, 2, 7) + b"do"), (farm.RUN, 2, 7, b"do"))
        self.assertEqual(farm.order(struct.pack("<IIQ", 2, 0, 0)), (farm.LEAVE, 0, 0, b""))
        self.assertEqual(farm.order(struct.pack("<IIQ", 3, 0, 7) + b"half"), (farm.PIECE, 0, 7, b"half"))
        for data in (bytes(15), struct.pack("<IIQ", 4, 0, 0), struct.pack("<IIQ", 1, 0, 7) + b"x"):
            with self.assertRaises(ProtocolError):
                farm.order(data)

    def test_errors_travel(self) -> None:
        def made(error: BaseException, may_pickle: bool = False) -> BaseException:
            try:
                raise error
            except BaseException as raised:
                return unpack(pack(raised, may_pickle), may_pickle)

        for error in (ValueError("x"), KeyError("k"), ZeroDivisionError(), OSError(2, "no such file"), UnicodeError("ä\ud800")):
            found = made(error)
            self.assertEqual((type(found), found.args), (type(error), error.args))
            self.assertIn("test_worker.py", str(found.__cause__))
        self.assertEqual(type(made(KeyError((1, 2)))), RemoteError)
        self.assertEqual(made(KeyError((1, 2)), True).args, ((1, 2),))
        self.assertEqual(str(made(SystemExit(3))), "SystemExit: 3")
        self.assertIsInstance(made(ValueError("x" * 1_000_000)), LswitchError)
        for data in (b"", b"\xff\xff\xff\xff", b"\2\0\0\0{}", os.urandom(30)):
            self.assertIsInstance(unpack(data, True), RemoteError)

    def test_chunks_cover_all_items_and_end_with_single_ones(self) -> None:
        for count in (0, 1, 5, 100, 10_000, 1_000_000):
            for workers in (1, 4, 1000):
                found = list(sizes(count, workers))
                self.assertEqual(sum(size for _, size in found), count)
                self.assertEqual([begin for begin, _ in found], [0, *itertools.accumulate(size for _, size in found)][: len(found)])
                if count > 100:
                    self.assertEqual(found[-1][1], 1)
        self.assertLess(len(list(sizes(10_000, 4))), 200)
        self.assertEqual([size for _, size in sizes(10, 4, 4)], [4, 4, 2])


class Served(http.server.BaseHTTPRequestHandler):
    """A Runtime API with a few invocations."""

    protocol_version = "HTTP/1.1"
    events: List[Any]
    told: List[Tuple[str, Any, Any]]

    def do_GET(self) -> None:
        if not self.events:
            self.send_response(410)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = json.dumps(self.events.pop(0)).encode()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", "r1")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int(time.time() * 1000) + 5000))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.told.append((self.path, json.loads(body), self.headers.get("Lambda-Runtime-Function-Error-Type")))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Runtime(unittest.TestCase):
    def serve(self, name: str, *events: Any) -> Tuple[int, str, List[Tuple[str, Any, Any]]]:
        served = type("Served", (Served,), {"events": list(events), "told": []})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            path = os.pathsep.join([str(HERE.parent / "src"), str(HERE)])
            done = subprocess.run(
                [sys.executable, "-m", "lswitch.runtime", name],
                env={**os.environ, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}", "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=30,
            )
        finally:
            server.shutdown()
            server.server_close()
        return done.returncode, done.stderr, served.told  # type: ignore[attr-defined]

    def test_invocations_are_answered(self) -> None:
        code, _, told = self.serve("functions.plain", {"a": 1}, {"fail": "on purpose"}, [])
        self.assertEqual(code, 0)
        (path, first, _), (failed_path, error, kind), (_, third, _) = told
        self.assertEqual((path, first["event"]), ("/2018-06-01/runtime/invocation/r1/response", {"a": 1}))
        self.assertTrue(3000 < first["left_ms"] <= 5000)
        self.assertEqual((failed_path, kind), ("/2018-06-01/runtime/invocation/r1/error", "ValueError"))
        self.assertEqual((error["errorType"], error["errorMessage"]), ("ValueError", "on purpose"))
        self.assertIn("functions.py", "".join(error["stackTrace"]))
        self.assertEqual(third["event"], [])

    def test_a_handler_that_is_not_there(self) -> None:
        for name, kind in (("nowhere.f", "ModuleNotFoundError"), ("functions.nothing", "AttributeError"), ("x", "ValueError")):
            code, _, told = self.serve(name)
            self.assertEqual((code, told[0][0], told[0][2]), (1, "/2018-06-01/runtime/init/error", kind))

    def test_it_says_how_it_is_used(self) -> None:
        command = [sys.executable, "-m", "lswitch.runtime"]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 2)
        self.assertIn("usage: python -m lswitch.runtime MODULE.HANDLER", done.stderr)


@NEEDS_BINARY
class Invoked(unittest.TestCase):
    """`lswitch invoke run --local-function`."""

    def setUp(self) -> None:
        home = tempfile.TemporaryDirectory(prefix="lswitch-python-")
        self.addCleanup(home.cleanup)
        self.home = Path(home.name)

    def function(self, name: str, handler: str, module: str = "lswitch.runtime") -> str:
        path = os.pathsep.join([str(HERE.parent / "src"), str(HERE)])
        file = self.home / f"{name}.toml"
        file.write_text(
            f'command = ["{sys.executable}", "-m", "{module}", "{handler}"]\nhandler = "{handler}"\n'
            f'memory_mb = 512\ntimeout_s = 30\n[environment]\nPYTHONPATH = "{path}"\nPATH = "{os.environ["PATH"]}"\n'
        )
        return str(file)

    def invoke(self, *arguments: str, binary: str = BINARY, event: Any = None) -> "subprocess.CompletedProcess[str]":
        command = [binary, "invoke", "run", *arguments, "--store", str(self.home)]
        if event is not None:
            command += ["--event", "-"]
        environment = {**os.environ, "LSWITCH_HOME": str(self.home)}
        return subprocess.run(
            command, env=environment, input=json.dumps(event), capture_output=True, text=True, timeout=60, cwd=self.home
        )

    def test_a_handler(self) -> None:
        for module in ("lswitch.runtime", *(["awslambdaric"] if HAS_RIC else [])):
            with self.subTest(module):
                echo = self.function("echo", "functions.echo", module)
                done = self.invoke("--local-function", echo, "--workers", "3", "--json", event={"a": 1})
                self.assertEqual(done.returncode, 0, done.stderr)
                said = json.loads(done.stdout)
                results = said["results"]
                self.assertEqual((said["usage"]["calls"], said["usage"]["workers"]), (3, 3))
                self.assertEqual([one["total"] for one in results], [3, 3, 3])
                self.assertEqual(results[1]["event"], {"a": 1})

    def test_a_handler_that_fails(self) -> None:
        done = self.invoke("--local-function", self.function("broken", "functions.broken"), "--workers", "2")
        self.assertEqual(done.returncode, 1)
        self.assertIn("this rank is broken on purpose", done.stderr)

    def test_the_worker_is_for_executors(self) -> None:
        done = self.invoke("--local-function", self.function("worker", "lswitch.worker.handler"), "--workers", "1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("lswitch.worker serves the calls of lswitch.Executor", done.stderr)

    def test_a_softwareforwarder_handler(self) -> None:
        forwarded = self.function("forwarded", "functions.forwarded")
        done = self.invoke("--local-function", forwarded, "--workers", "2", "--allow-pickle", "--json", event={"rounds": 2})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["results"], [[1, [[0, [2, 0]], [1, [2, 2]]]], [2, [[0, [1, 0]], [1, [1, 1]]]]])

    @unittest.skipUnless(PROGRAMS, "set LSWITCH_PROGRAMS to the binary of examples/programs to run this test")
    def test_rust_and_python_in_one_ring(self) -> None:
        functions = f"lswitch=2,{self.function('py', 'functions.ring')}=2"
        done = self.invoke("ring", "--local-function", functions, "--json", binary=PROGRAMS)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["results"][0], "0 1 2 3")


if __name__ == "__main__":
    unittest.main()
