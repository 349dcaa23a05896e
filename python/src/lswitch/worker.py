"""The worker behind `lswitch.Executor`: a Lambda handler that joins the elastic job in its event and runs calls until the driver
lets it go, its time is up, or the job ends.

On AWS, deploy it with the modules whose functions are called, as the handler `lswitch.worker.handler`; on this machine the
Executor starts it by itself.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Tuple, Union

from . import call as calls
from . import failure
from .call import EACH, EACH_STAR, FOLD, MAY_PICKLE, ONE, REDUCE, Call
from .comm import Comm
from .errors import DeadlineError, MessageError, ProtocolError, TooLongError, UsageError
from .event import parse
from .farm import ANSWER, CANCEL, DONE, FAILED_FOR_GOOD, LEAVE, PAYLOAD_MAX, PIECE, PIECE_MAX, TAG, answers, order
from .frame import DRIVER
from .function import named, stand_in_for_main
from .handler import deadline_of, tell_usage, words_of

#: After how many seconds an answer goes out at the latest while there is more to do and the keeper cannot run.
_GATHER_S = 0.001

#: Bytes of orders that are taken at once.
_ORDERS_MAX = 1 << 20

#: Pickled functions that are kept, since many calls of one come in a row.
_KEPT = 32

Answer = Tuple[int, bytes]


def handler(event: Any, context: Any = None) -> Dict[str, Any]:
    """The Lambda handler."""
    invoked = time.monotonic()
    parsed = parse(event)
    comm = Comm.join(parsed, deadline_of(context))
    begun = time.monotonic()
    try:
        try:
            count = serve(comm, Runner(parsed.allow_pickle))
        except BaseException as error:
            comm.leave(words_of(parsed.rank, error))
            raise
        tell_usage(comm, invoked)
        comm.leave()
    finally:
        comm.close()
    return {"ranks": 1, "seconds": round(time.monotonic() - begun, 6), "calls": count}


def serve(comm: Comm, run: Callable[[bytes], Answer]) -> int:
    """Runs tasks as they come and answers each; gives how many, when the driver lets the worker go or no time is left."""
    if not comm.peers.packs.elastic:
        raise UsageError("lswitch.worker serves the calls of lswitch.Executor (lswitch invoke pool), and this is another job")
    serving = _Serving(comm, run)
    try:
        while serving.some():
            pass
    except DeadlineError:
        # What was not answered is given to others.
        pass
    return serving.count


class _Serving:
    """A worker at work."""

    def __init__(self, comm: Comm, run: Callable[[bytes], Answer]) -> None:
        self._comm = comm
        self._run = run
        self.count = 0
        #: What has come of long calls, by their tasks.
        self._pieces: Dict[int, List[bytes]] = {}

    def some(self) -> bool:
        """Runs the tasks that are there. False when nothing is to be done any more."""
        comm, run = self._comm, self._run
        clock, pack = time.monotonic, ANSWER.pack
        orders = [order(message) for message in comm.receive_many(DRIVER, TAG, _ORDERS_MAX)]
        cancelled = {task for kind, _, task, _ in orders if kind == CANCEL}
        said: List[bytes] = []
        stay = True
        begun = clock()
        flush_at = begun + _GATHER_S
        for kind, _, task, payload in orders:
            if kind == LEAVE or begun >= comm.deadline:
                stay = False
                break
            if kind == CANCEL:
                continue
            if kind == PIECE:
                pieces = self._pieces.setdefault(task, [])
                pieces.append(payload)
                if len(pieces) * PIECE_MAX > PAYLOAD_MAX + PIECE_MAX:
                    raise ProtocolError(f"task {task} has more than {PAYLOAD_MAX} bytes")
                continue
            if self._pieces:
                payload = b"".join([*self._pieces.pop(task, []), payload])
            ending, answer = run(payload) if task not in cancelled else (DONE, b"")
            ended = clock()
            took = int((ended - begun) * 1e6)
            if len(answer) <= PIECE_MAX:
                said.append(pack(ending, 0, task, took) + answer)
            else:
                said += answers(ending, task, took, answer)
            begun = ended
            self.count += 1
            if ended >= flush_at:
                comm.send_many(DRIVER, TAG, said)
                comm.flush()
                said = []
                # To write is not the next call's work.
                begun = clock()
                flush_at = begun + _GATHER_S
        comm.send_many(DRIVER, TAG, said)
        # Before whatever is to be done until the next wait.
        comm.flush()
        return stay


class Runner:
    """Runs calls, one after the other."""

    def __init__(self, allow_pickle: bool) -> None:
        self._allow_pickle = allow_pickle
        #: Calls without arguments, by their bytes.
        self._plain: Dict[bytes, Tuple[Callable[..., Any], int]] = {}
        self._by_value: Dict[bytes, Callable[..., Any]] = {}

    def __call__(self, data: bytes) -> Answer:
        known = self._plain.get(data)
        form = 0
        try:
            if known is not None:
                function, form = known
                answer = calls.result(function(), form)
            else:
                call = calls.parse(data)
                form = call.form
                if self._allow_pickle and b"__main__" in data:
                    stand_in_for_main()
                if call.how != ONE:
                    return self._several(call)
                function = self._function(call.functions[0])
                if not call.given and len(data) < 512 and len(self._plain) < 1024:
                    self._plain[data] = (function, form)
                args, kwargs = calls.given_to_one(form, call.given, self._allow_pickle)
                answer = calls.result(function(*args, **kwargs), form)
        except BaseException as error:
            return self._failed(error, form)
        if len(answer) > PAYLOAD_MAX:
            return self._failed(_too_long(len(answer)), form)
        return DONE, answer

    def _several(self, call: Call) -> Answer:
        """Up to the first that fails: whoever reads the results in order needs no more."""
        functions = [self._function(function) for function in call.functions]
        items = calls.given_to_each(call.form, call.given, self._allow_pickle)
        if call.how in (FOLD, REDUCE):
            value = _folded(functions[-1], map(functions[0], items) if call.how == FOLD else items)
            answer = calls.result(value, call.form)
        elif call.how in (EACH, EACH_STAR):
            function = functions[0]
            done: List[Any] = []
            try:
                if call.how == EACH:
                    for item in items:
                        done.append(function(item))
                else:
                    for item in items:
                        done.append(function(*item))
            except BaseException as error:
                return self._failed(error, call.form, done)
            answer = calls.results(done, call.form)
        else:
            raise MessageError(f"a call of the kind {call.how}, which this worker does not know; is it another release than the caller?")
        if len(answer) > PAYLOAD_MAX:
            raise _too_long(len(answer))
        return DONE, answer

    def _function(self, function: Union[str, bytes]) -> Callable[..., Any]:
        if isinstance(function, str):
            return named(function)
        kept = self._by_value.get(function)
        if kept is None:
            kept = calls.loads(function, self._allow_pickle)
            if len(self._by_value) >= _KEPT:
                self._by_value.clear()
            self._by_value[function] = kept
        return kept

    def _failed(self, error: BaseException, form: int, before: List[Any] = []) -> Answer:
        packed = failure.pack(error, bool(form & MAY_PICKLE) and self._allow_pickle, 1)
        answer = b""
        if before:
            try:
                answer = calls.results(before, form)
            except Exception as other:
                packed = failure.pack(other, False)
        if len(answer) + len(packed) + 4 > PAYLOAD_MAX:
            packed = failure.pack(_too_long(len(answer) + len(packed)), False)
            answer = b""
        return FAILED_FOR_GOOD, calls.failed(packed, answer)


def _folded(reduce: Callable[..., Any], values: Any) -> Any:
    remaining = iter(values)
    found = next(remaining)
    for value in remaining:
        found = reduce(found, value)
    return found


def _too_long(length: int) -> TooLongError:
    return TooLongError(
        f"the result has {length} bytes, over the limit of {PAYLOAD_MAX}; return less, use a smaller chunksize, or write long results to a "
        "file or a store"
    )
