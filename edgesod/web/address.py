"""Where the page listens, who may reach it there, and what a browser has to be told to find it."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from edgesod.errors import OutputError, UsageError

_FORM = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^:\[\]/\s]*):)?(?P<port>\d{1,5})")
_BACKLOG = 128
_SEND_BUFFER_BYTES = 1 << 17
_STUCK_AFTER_S = 20


@dataclass(frozen=True)
class Address:
    """A host, as it was typed, and a port; port 0 takes a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``8080``, ``:8080``, ``0.0.0.0:8080``, ``[::1]:8080`` or ``name:8080``; without a host it is this machine alone.

        Raises:
            UsageError: It is none of these.
        """
        found = _FORM.fullmatch(text.strip())
        if not found or int(found["port"]) > 65535:
            raise UsageError(
                f"{text!r} is not an address for the page", hint="--web :8080, or --web 0.0.0.0:8080 for all to see"
            )
        return cls((found["host"] or "").strip("[]") or "127.0.0.1", int(found["port"]))

    def listen(self) -> socket.socket:
        """Return a socket that listens.

        Raises:
            OutputError: The port is taken or may not be used, or this machine has no such address.
        """
        try:
            family, kind, _, _, where = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(family, kind)
        except OSError as error:
            raise OutputError(f"the page cannot be shown at {self}: {error.strerror}", hint="--web :8080") from error
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # connections inherit both: little of the past waits for a slow client, and one that takes nothing is let go
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STUCK_AFTER_S * 1000)
            listener.bind(where)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise OutputError(
                f"the page cannot be shown at {self}: {error.strerror}", hint=f"another port: --web :{self.port % 65535 + 1}"
            ) from error
        return listener

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


def is_loopback(host: str) -> bool:
    """Tell whether an IP address or name means this machine and no other."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def bracketed(host: str) -> str:
    """Return a host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def reachable_host(listener: socket.socket) -> str:
    """Return the address others reach a listener by: its own, or this machine's where it listens on all of them."""
    host = str(listener.getsockname()[0])
    if not ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        return host
    # connecting a datagram socket sends nothing, it only asks the routing table; the network is the one for documentation
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
