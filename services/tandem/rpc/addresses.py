"""Addresses as users write them: `host:port` or `unix:/path`."""

import ipaddress
import os
import tempfile
from pathlib import Path

UNIX_PREFIX = "unix:"


def default_socket(service: str) -> str:
    """Where `service` listens when nobody says otherwise: a socket in a directory of this user's own."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    directory = Path(runtime, "tandem") if runtime else Path(tempfile.gettempdir(), f"tandem-{os.getuid()}")
    return f"{UNIX_PREFIX}{directory / service}.sock"


def socket_path(address: str) -> Path | None:
    """The path of a `unix:` address; None for any other."""
    return Path(address.removeprefix(UNIX_PREFIX)) if address.startswith(UNIX_PREFIX) else None


def is_local(address: str) -> bool:
    """Whether only this machine can reach a server at `address`: a Unix socket, or a loopback address of TCP."""
    if socket_path(address):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
