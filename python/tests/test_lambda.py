"""The whole chain: the local Lambda runs the functions through AWS's own runtime client, beside Rust's workers.

Needs awslambdaric for this Python; what drives Rust's programs needs LSWITCH_PROGRAMS, the binary of examples/programs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import unittest
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, Tuple

from support import BINARY, NEEDS_BINARY, OnASwitch, in_threads

PROGRAMS = os.environ.get("LSWITCH_PROGRAMS", "")
HERE = Path(__file__).resolve().parent


@NEEDS_BINARY
@unittest.skipUnless(importlib.util.find_spec("awslambdaric"), "awslambdaric is not installed")
class OnLambda(OnASwitch):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        home = Path(cls.switches[0].home)
        folder = home / "functions"
        folder.mkdir()
        for name in ("ring", "echo", "broken", "forwarded"):
            path = os.pathsep.join([str(HERE.parent / "src"), str(HERE)])
            folder.joinpath(f"{name}.toml").write_text(
                f'command = ["{sys.executable}", "-m", "awslambdaric", "functions.{name}"]\n'
                f'handler = "functions.{name}"\nmemory_mb = 512\ntimeout_s = 30\n'
                f'[environment]\nPYTHONPATH = "{path}"\nPATH = "{os.environ["PATH"]}"\n'
            )
        cls.local = subprocess.Popen(
            [PROGRAMS or BINARY, "local", "--listen", "127.0.0.1:0", "--json", "--quiet"],
            stdout=subprocess.PIPE,
            env={**os.environ, "LSWITCH_HOME": str(home)},
            text=True,
        )
        assert cls.local.stdout is not None
        cls.endpoint = json.loads(cls.local.stdout.readline())["endpoint"]

    @classmethod
    def tearDownClass(cls) -> None:
        cls.local.terminate()
        cls.local.wait()
        assert cls.local.stdout is not None
        cls.local.stdout.close()
        super().tearDownClass()

    def invoke(self, function: str, event: Dict[str, Any]) -> Tuple[bool, Any]:
        url = f"{self.endpoint}/2015-03-31/functions/{function}/invocations"
        request = urllib.request.Request(url, json.dumps(event).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=50) as answer:
            return "x-amz-function-error" in answer.headers, json.load(answer)

    def test_a_ring_of_functions(self) -> None:
        driver = self.drive(3)
        answers = in_threads(3, lambda rank: self.invoke("ring", driver.event(rank)))
        self.assertEqual([(failed, answer["ranks"]) for failed, answer in answers], [(False, 1)] * 3)
        driver.close()
        self.assertEqual(driver.results[0], b"0 1 2")

    def test_a_failure_has_its_type_and_words(self) -> None:
        driver = self.drive(2)

        def call(rank: int) -> Any:
            answer = self.invoke("broken", driver.event(rank))
            if rank == 1:
                driver.abort("a rank failed")
            return answer

        answers = in_threads(2, call)
        self.assertEqual((answers[1][0], answers[1][1]["errorType"]), (True, "ValueError"))
        self.assertIn("this rank is broken on purpose", answers[1][1]["errorMessage"])
        self.assertEqual((answers[0][0], answers[0][1]["errorType"]), (True, "Lswitch.ConnectionLost"))

    def test_an_event_of_another_version(self) -> None:
        failed, answer = self.invoke("echo", {"version": 2})
        self.assertEqual((failed, answer["errorType"]), (True, "Lswitch.Event"))

    def test_a_softwareforwarder_handler(self) -> None:
        driver = self.drive(2)
        more = {"server_url": "", "rounds": 1, "allow_pickle": True}
        answers = in_threads(2, lambda rank: self.invoke("forwarded", driver.event(rank, **more)))
        self.assertEqual([answer["res"] for _, answer in answers], [[[[2, 0]]], [[[1, 0]]]])

    @unittest.skipUnless(PROGRAMS, "set LSWITCH_PROGRAMS to the binary of examples/programs to run this test")
    def test_rust_and_python_in_one_ring(self) -> None:
        driver = self.drive(4)
        functions = ["ring", "lswitch", "ring", "lswitch"]
        answers = in_threads(4, lambda rank: self.invoke(functions[rank], driver.event(rank, program="ring")))
        self.assertEqual([failed for failed, _ in answers], [False] * 4, answers)
        driver.close()
        self.assertEqual(driver.results[0], b"0 1 2 3")

    @unittest.skipUnless(PROGRAMS, "set LSWITCH_PROGRAMS to the binary of examples/programs to run this test")
    def test_the_command_line_drives_python_functions(self) -> None:
        for function, code, words in (("ring", 0, "0 1 2"), ("broken", 1, "this rank is broken on purpose")):
            done = subprocess.run(
                [PROGRAMS, "invoke", "run", "ring", "--workers", "3", "--function", function]
                + ["--switch", self.switches[0].address, "--store", self.switches[0].home],
                env={
                    **os.environ,
                    "LSWITCH_HOME": self.switches[0].home,
                    "AWS_ENDPOINT_URL_LAMBDA": self.endpoint,
                    "AWS_REGION": "us-east-1",
                    "AWS_ACCESS_KEY_ID": "any",
                    "AWS_SECRET_ACCESS_KEY": "any",
                },
                capture_output=True,
                text=True,
                timeout=60,
            )
            self.assertEqual(done.returncode, code, done)
            self.assertIn(words, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
