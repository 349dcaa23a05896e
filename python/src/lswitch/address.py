"""Where a switch is, and by which certificate it is known: HOST:PORT, or HOST:PORT#SHA256. Pure."""

from __future__ import annotations

from typing import NamedTuple, Optional, Tuple

from .errors import EventError

_SHA256_LEN = 32


class Address(NamedTuple):
    """With a pin the connection is TLS, and the switch must have just that certificate; without one it is plain TCP."""

    #: Where it is, for people.
    place: str
    #: The SHA-256 of the certificate's DER.
    pin: Optional[bytes]

    def host_and_port(self) -> Tuple[str, int]:
        host, colon, port = self.place.rpartition(":")
        if not colon or not host or not port.isdigit() or int(port) > 65535:
            raise EventError(f"the event names the switch {self.place!r}, which is not HOST:PORT")
        return host.strip("[]"), int(port)


def parse(text: str) -> Address:
    """Takes an address apart. Raises EventError if what follows # is no fingerprint."""
    place, mark, digits = text.partition("#")
    if not mark:
        return Address(place, None)
    try:
        # `fromhex` would skip blanks.
        pin = bytes.fromhex(digits) if len(digits) == 2 * _SHA256_LEN else b""
    except ValueError:
        pin = b""
    if len(pin) != _SHA256_LEN:
        raise EventError(
            f"the switch's address {text!r} does not end in a certificate's SHA-256: after # come 64 hexadecimal digits, as "
            "\"lswitch serve\" prints them"
        )
    return Address(place, pin)
