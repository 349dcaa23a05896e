"""TLS 1.3 with a switch whose certificate is known by its SHA-256, and taken whatever it says of names and times."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading

from .errors import UnreachableError

#: What one call seals, in bytes. A call that could not write is made again with the same bytes.
_PIECE = 64 * 1024

#: What one record may open to, in bytes: with room for so many nothing is left opened that no poll tells of.
_RECORD_MAX = 16 * 1024


def seal(connected: socket.socket, place: str, pin: bytes) -> "SealedSocket":
    """Makes the handshake on a connected socket, within its time-out, before anything is sent.

    Raises UnreachableError if the switch has another certificate, or there is no TLS with it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # There is no authority and no name: the fingerprint is compared below.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        sealed = context.wrap_socket(connected)
    except OSError as error:
        connected.close()
        if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
            raise UnreachableError(
                f"the switch at {place} speaks plain TCP, and its address names a certificate: run \"lswitch serve\" with --tls, "
                "or give the address without what follows #"
            ) from None
        raise UnreachableError(
            f"no TLS with what listens at {place}: {error}; is it the switch, and of this release?"
        ) from error
    found = hashlib.sha256(sealed.getpeercert(binary_form=True) or b"").digest()
    if found != pin:
        sealed.close()
        raise UnreachableError(
            f"the switch at {place} has another certificate than its address names: SHA-256 {found.hex()}, and not {pin.hex()}. If it "
            "was set up anew, take the address that \"lswitch serve\" prints now; if not, somebody else answers there"
        )
    return SealedSocket(sealed)


class SealedSocket:
    """What a `Wire` needs of a socket, over TLS. One thread may read while another writes."""

    def __init__(self, sealed: ssl.SSLSocket) -> None:
        self._sealed = sealed
        # The session is one for both ways, and not all releases of Python guard it.
        self._lock = threading.Lock()

    def setblocking(self, blocking: bool) -> None:
        self._sealed.setblocking(blocking)

    def fileno(self) -> int:
        return self._sealed.fileno()

    def send(self, data: memoryview) -> int:
        """Sends some of the bytes. Raises BlockingIOError if none go now; then the same are to be given again."""
        try:
            with self._lock:
                return self._sealed.send(data[:_PIECE])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def recv_into(self, room: memoryview) -> int:
        """Reads what is there, as far as there is room for whole records. 0 at the end; BlockingIOError if nothing is there."""
        count = 0
        with self._lock:
            while count == 0 or len(room) - count >= _RECORD_MAX:
                try:
                    came = self._sealed.recv_into(room[count:])
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    if count == 0:
                        raise BlockingIOError from None
                    break
                except OSError:
                    # It shows again when what came before it has been looked at.
                    if count == 0:
                        raise
                    break
                if came == 0:
                    break
                count += came
        return count

    def close(self) -> None:
        """Says that nothing more comes, if that goes without waiting, and closes."""
        with self._lock:
            try:
                self._sealed.unwrap()
            except (OSError, ValueError):
                # The other side is gone, or has not answered yet; nobody waits for it.
                pass
            self._sealed.close()
