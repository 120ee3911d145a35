"""Who listens on a Unix socket."""

import os
import socket
import stat
import struct
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")  # of SO_PEERCRED: process, user, group


class PeerRefused(Exception):
    """Nobody listens on a socket, or somebody who is not to be trusted; the text says why."""


class NobodyListens(PeerRefused):
    """There is no socket, or nobody behind it."""


def check_peer(path: Path) -> None:
    """Makes sure that the process behind a socket is this user's, and that no other user could get between.

    Raises:
        PeerRefused: it is not so.
    """
    try:
        status, directory = path.lstat(), path.parent.stat()
    except OSError as error:
        raise NobodyListens(error.strerror or "no socket") from None
    user = os.geteuid()
    if directory.st_uid not in (0, user) or (directory.st_mode & 0o022 and not directory.st_mode & stat.S_ISVTX):
        raise PeerRefused("other users can change the socket's directory")
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != user or status.st_mode & 0o077:
        raise PeerRefused("it must be a socket of this user with mode 0600")
    listener = _listener(path)
    if listener != user:
        raise PeerRefused(f"user {listener} listens there, not this one")


def _listener(path: Path) -> int:
    """The user whose process listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError as error:
            raise NobodyListens(error.strerror or "no answer") from None
    _, user, _ = _CREDENTIALS.unpack(credentials)
    assert isinstance(user, int)
    return user
