"""Whose sockets a verifier trusts, before it dials."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.rpc.server import RpcServer
from tandem.verifier import peer
from tandem.verifier.peer import NobodyListens, PeerRefused, check_peer


def listen(path, mode=0o600):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    os.chmod(path, mode)
    server.listen()
    return server


def test_a_socket_of_this_user_alone_is_trusted(tmp_path):
    with listen(tmp_path / "s"):
        check_peer(tmp_path / "s")


@pytest.mark.parametrize("mode", [0o606, 0o660, 0o666, 0o620])
def test_a_socket_open_to_others_is_not(tmp_path, mode):
    with listen(tmp_path / "s", mode), pytest.raises(PeerRefused, match="mode 0600"):
        check_peer(tmp_path / "s")


def test_a_directory_open_to_others_is_not(tmp_path):
    directory = tmp_path / "open"
    directory.mkdir()
    with listen(directory / "s"):
        directory.chmod(0o777)
        with pytest.raises(PeerRefused, match="directory"):
            check_peer(directory / "s")
        directory.chmod(0o777 | stat.S_ISVTX)
        check_peer(directory / "s")


def test_what_is_no_socket_is_not(tmp_path):
    (tmp_path / "file").touch(0o600)
    with listen(tmp_path / "s"):
        (tmp_path / "link").symlink_to(tmp_path / "s")
        for name in ("file", "link"):
            with pytest.raises(PeerRefused, match="socket"):
                check_peer(tmp_path / name)


def test_nobody_listens(tmp_path):
    with pytest.raises(NobodyListens):
        check_peer(tmp_path / "absent")
    listen(tmp_path / "s").close()
    with pytest.raises(NobodyListens):
        check_peer(tmp_path / "s")


def test_another_users_socket_is_not_trusted(tmp_path, monkeypatch):
    with listen(tmp_path / "s"):
        user = os.geteuid()
        monkeypatch.setattr(peer, "_listener", lambda _path: user + 1)
        with pytest.raises(PeerRefused, match=f"user {user + 1} listens"):
            check_peer(tmp_path / "s")
        monkeypatch.undo()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        with pytest.raises(PeerRefused):
            check_peer(tmp_path / "s")


LISTEN_AS_ANOTHER = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o600)
os.setuid(65534)
server.listen()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen as somebody else")
def test_it_is_the_listener_that_counts_not_the_sockets_owner(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN_AS_ANOTHER, str(tmp_path / "s")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"ready\n"
        assert Path(tmp_path / "s").stat().st_uid == 0
        with pytest.raises(PeerRefused, match="user 65534 listens"):
            check_peer(tmp_path / "s")
        other.stdin.close()


def test_servers_and_links_agree_on_a_sockets_mode(tmp_path):
    async def main():
        server = RpcServer()
        await server.start(f"unix:{tmp_path}/s")
        check_peer(tmp_path / "s")
        await server.stop(0)

    asyncio.run(main())
