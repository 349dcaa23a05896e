"""Runs handlers that were written for SoftwareForwarder, unchanged, over lswitch.

    @softwareforwarder.SoftwareForwarder(url=event["server_url"])
    def main(event, context):
        event["sen"](peer, message)
        message = event["rec"]()

The wrapper joins the job that the event names, gives the function its `sen`, `rec`, `uid` (from 1) and `peers` in the
event, and gives back what it returned, which is also the rank's result at the driver. Messages may be anything that can be
pickled, so that the job must allow it: `lswitch invoke run --allow-pickle`.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Callable, MutableMapping

from lswitch import message as envelope
from lswitch.errors import EventError, UsageError
from lswitch.event import parse
from lswitch.handler import encode_result, in_job
from lswitch.job import Job

__all__ = ["SoftwareForwarder"]


class SoftwareForwarder:
    """See the module. `url` was where the forwarder listened; the event names the switches now, and it is not used."""

    def __init__(self, url: str = "") -> None:
        self.url = url

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **named: Any) -> Any:
            event = args[0] if args else named.get("event")
            context = args[1] if len(args) > 1 else named.get("context")
            parsed = parse(event)
            if not parsed.allow_pickle:
                raise EventError(envelope.ALLOW_PICKLE)
            assert isinstance(event, MutableMapping)

            def run(job: Job) -> Any:
                _give(event, job)
                return function(*args, **named)

            try:
                _, returned = in_job(parsed, context, run, _encode_result)
            finally:
                # Nothing of a job stays where the next one, or an answer in JSON, would find it.
                for name in ("sen", "rec"):
                    event.pop(name, None)
            return returned

        return wrapper


def _give(event: MutableMapping[str, Any], job: Job) -> None:
    peers = tuple(range(1, job.size + 1))

    def sen(peer: int, message: Any) -> None:
        """Sends a message to a peer; waits for nobody who is sending too."""
        if not isinstance(peer, int) or not 1 <= peer <= job.size:
            raise UsageError(f"sen to {peer!r}; the peers are 1 to {job.size}")
        # Whatever comes meanwhile is kept: handlers of this kind may all send before they receive.
        job.comm.send(peer - 1, envelope.encode(message, "pickle", job.allow_pickle), keep=True)

    def rec() -> Any:
        """The next message, from any peer."""
        return job.receive().data

    event.update(sen=sen, rec=rec, uid=job.rank + 1, peers=peers)


def _encode_result(value: Any) -> bytes:
    """As lswitch's handlers, but nothing that can be returned fails."""
    try:
        return encode_result(value)
    except Exception:
        return json.dumps(repr(value)).encode()
