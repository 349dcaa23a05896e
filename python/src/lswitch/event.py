"""The event that starts a pack; docs/EVENT.md has its fields. Pure."""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple, Tuple

from . import address
from .errors import EventError
from .frame import SWITCHES_MAX
from .release import RELEASE

VERSION = 1


class Event(NamedTuple):
    """What a pack needs to know to join, checked."""

    release: str
    job: bytes
    switches: Tuple[str, ...]
    expiry_s: int
    code: bytes
    rank: int
    size: int
    epoch: int
    incarnation: int
    join_within_s: float
    allow_pickle: bool
    store: str
    raw: Mapping[str, Any]

    def for_program(self) -> Any:
        """The user's own event: the program's arguments, or what stands in `event`."""
        arguments = self.raw.get("arguments")
        return arguments if arguments is not None else self.raw.get("event")


def parse(raw: Any) -> Event:
    """Checks an event.

    Raises EventError with what is wrong with it.
    """
    if not isinstance(raw, Mapping) or "version" not in raw:
        raise EventError(
            "the event is none of lswitch's: it has no version; start this function with \"lswitch invoke run --function NAME\""
        )
    version = raw["version"]
    if version != VERSION:
        raise EventError(
            f"the event is of version {version}, and this client (lswitch {RELEASE} for Python) takes {VERSION}; "
            f"install the release of the driver: pip install lswitch=={raw.get('release', 'RELEASE')}"
        )
    token = _field(raw, "token", Mapping)
    ranks = _number(raw, "ranks")
    if ranks != 1:
        raise EventError(
            f"the event asks for {ranks} ranks in one function, and a Python function holds one: "
            "give --workers-per-function 1"
        )
    switches = _field(raw, "switches", list)
    if not 1 <= len(switches) <= SWITCHES_MAX or not all(isinstance(switch, str) for switch in switches):
        raise EventError(f"the event names {len(switches)} switches; a job has 1 to {SWITCHES_MAX}, each HOST:PORT or HOST:PORT#SHA256")
    for switch in switches:
        address.parse(switch)
    rank, size = _number(raw, "first_rank"), _number(raw, "size")
    if rank >= size:
        raise EventError(f"the event is for rank {rank} of a job of {size} ranks")
    join_within_s = raw.get("join_within_s")
    if isinstance(join_within_s, bool) or not isinstance(join_within_s, (int, float)) or not 0 < join_within_s < 1e6:
        raise EventError(f"the event's join_within_s is {join_within_s!r}, not a number of seconds")
    return Event(
        release=_field(raw, "release", str),
        job=_hex(raw, "job", 16),
        switches=tuple(switches),
        expiry_s=_number(token, "expiry_s", "token.", 1 << 64),
        code=_hex(token, "code", 32, "token."),
        rank=rank,
        size=size,
        epoch=_number(raw, "epoch"),
        incarnation=_number(raw, "incarnation"),
        join_within_s=float(join_within_s),
        allow_pickle=raw.get("allow_pickle") is True,
        store=str(raw.get("store") or ""),
        raw=raw,
    )


def _field(raw: Mapping[str, Any], name: str, kind: type, within: str = "") -> Any:
    found = raw.get(name)
    if not isinstance(found, kind):
        raise EventError(f"the event's {within}{name} is {found!r}, not a {kind.__name__}; is the event lswitch's?")
    return found


def _number(raw: Mapping[str, Any], name: str, within: str = "", below: int = 1 << 32) -> int:
    found = raw.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < below:
        raise EventError(f"the event's {within}{name} is {found!r}, not a number from 0 to {below - 1}")
    return found


def _hex(raw: Mapping[str, Any], name: str, length: int, within: str = "") -> bytes:
    found = raw.get(name)
    try:
        data = bytes.fromhex(found) if isinstance(found, str) else b""
    except ValueError:
        data = b""
    if len(data) != length:
        # Not the value: a token is no more for logs than a password.
        raise EventError(f"the event's {within}{name} is not {2 * length} hexadecimal digits")
    return data


#: Fields of an event that are lswitch's own.
OWN_FIELDS = frozenset(
    "version release job switches token first_rank ranks size epoch incarnation join_within_s program arguments store "
    "event allow_pickle".split()
)


def users_own(raw: Mapping[str, Any]) -> Dict[str, Any]:
    """The fields of an event that are not lswitch's."""
    return {name: value for name, value in raw.items() if name not in OWN_FIELDS}
