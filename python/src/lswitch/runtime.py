"""The client of AWS Lambda's Runtime API: `python -m lswitch.runtime module.handler`.

It takes invocations, calls the handler and answers, until the API goes away. It has what a worker needs and no more; awslambdaric does as well.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import signal
import sys
import time
import traceback
from typing import Any, Callable, Dict, List, Optional

_VERSION = "/2018-06-01/runtime"

#: Of a traceback in an error, in lines.
_LINES_MAX = 100

Handler = Callable[[Any, Any], Any]


class Context:
    """What a handler is told of its invocation."""

    def __init__(self, headers: Any) -> None:
        self.aws_request_id: str = headers.get("Lambda-Runtime-Aws-Request-Id", "")
        self.invoked_function_arn: str = headers.get("Lambda-Runtime-Invoked-Function-Arn", "")
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        self.identity = None
        self.client_context = None
        self._deadline_ms = int(headers.get("Lambda-Runtime-Deadline-Ms", 0))

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self._deadline_ms - int(time.time() * 1000))


class Api:
    """The Runtime API, over one connection."""

    def __init__(self, address: str) -> None:
        # No time limit: the next invocation may be hours away.
        self._connection = http.client.HTTPConnection(address)

    def next(self) -> "tuple[Context, bytes]":
        self._connection.request("GET", f"{_VERSION}/invocation/next")
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(f"the Runtime API answered {answer.status}: {body[:500]!r}")
        return Context(answer.headers), body

    def answer(self, request: str, body: bytes) -> None:
        self._post(f"/invocation/{request}/response", body, {})

    def fail(self, request: Optional[str], error: BaseException) -> None:
        """Of an invocation, or of the start if there is none."""
        told = described(error)
        path = "/init/error" if request is None else f"/invocation/{request}/error"
        self._post(path, json.dumps(told).encode(), {"Lambda-Runtime-Function-Error-Type": str(told["errorType"])})

    def _post(self, path: str, body: bytes, headers: Dict[str, str]) -> None:
        self._connection.request("POST", _VERSION + path, body, {"Content-Type": "application/json", **headers})
        self._connection.getresponse().read()


def described(error: BaseException) -> Dict[str, Any]:
    """An error as Lambda tells it."""
    frames: List[str] = traceback.format_tb(error.__traceback__)[1:]
    return {
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "stackTrace": [line for frame in frames for line in frame.splitlines()][-_LINES_MAX:],
    }


def load(name: str) -> Handler:
    """`module.handler`, as Lambda writes it; folders may be separated by slashes."""
    module, dot, attribute = name.replace("/", ".").rpartition(".")
    if not dot:
        raise ValueError(f"{name!r} is no handler: a handler is MODULE.FUNCTION")
    found: Handler = getattr(importlib.import_module(module), attribute)
    return found


def run(api: Api, handler: Handler) -> None:
    """Takes invocations until the API goes away."""
    while True:
        try:
            context, body = api.next()
        except (OSError, http.client.HTTPException):
            return
        try:
            answer = json.dumps(handler(json.loads(body), context)).encode()
        except Exception as error:
            # The function's log has it whole.
            traceback.print_exc()
            sys.stderr.flush()
            api.fail(context.aws_request_id, error)
        else:
            sys.stdout.flush()
            api.answer(context.aws_request_id, answer)


def main(arguments: List[str]) -> int:
    address = os.environ.get("AWS_LAMBDA_RUNTIME_API")
    name = arguments[0] if arguments else os.environ.get("_HANDLER", "")
    if not address or not name:
        print(
            "usage: python -m lswitch.runtime MODULE.HANDLER, started by Lambda or \"lswitch\", which set AWS_LAMBDA_RUNTIME_API",
            file=sys.stderr,
        )
        return 2
    # Whoever presses Ctrl-C means the caller, who ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As on Lambda, modules are looked for in the function's own folder.
    root = os.environ.get("LAMBDA_TASK_ROOT")
    if root and root not in sys.path:
        sys.path.insert(0, root)
    api = Api(address)
    try:
        handler = load(name)
    except BaseException as error:
        traceback.print_exc()
        api.fail(None, error)
        return 1
    run(api, handler)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
