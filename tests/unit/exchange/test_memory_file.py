"""Files in memory: private, complete, and gone with their owner."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.core.errors import ExchangeError
from tandem.exchange.memory_file import create, map_bytes, open_existing, sweep

DIE_WITH_A_FILE = """
import os, signal, sys
from pathlib import Path
from tandem.exchange.memory_file import create
print(create(Path(sys.argv[1]), "target", 64)[0].name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_new_file_is_this_users_alone_and_full_of_zeros(tmp_path: Path) -> None:
    path, descriptor = create(tmp_path, "target", 1000)
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600 and status.st_uid == os.geteuid()
    assert path.read_bytes() == bytes(1000)
    assert status.st_blocks * 512 >= 1000, "its memory is taken"
    assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert create(tmp_path, "target", 1000)[0] != path


def test_a_full_directory_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(ExchangeError, match=f"cannot take 1000 bytes in {tmp_path}: No space left"):
        create(tmp_path, "target", 1000)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no memory-backed directory")
def test_more_than_the_memory_there_is(tmp_path: Path) -> None:
    status = os.statvfs("/dev/shm")
    before = set(os.listdir("/dev/shm"))
    with pytest.raises(ExchangeError, match="cannot take"):
        create(Path("/dev/shm"), "target", status.f_frsize * status.f_bavail + (1 << 40))
    assert not any(name.startswith("tandem-") for name in set(os.listdir("/dev/shm")) - before)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="No such file"):
        create(tmp_path / "absent", "target", 64)
    assert sweep(tmp_path / "absent") == 0


def test_only_a_regular_file_of_the_right_size_is_opened(tmp_path: Path) -> None:
    path, _ = create(tmp_path, "target", 64)
    os.close(open_existing(str(path), 64, is_writable=True))
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder", "absent"):
        for is_writable in (False, True):
            with pytest.raises(ExchangeError):
                open_existing(str(tmp_path / name), 64, is_writable)
    for wrong in (os.path.relpath(path), "", f"{path}\0", f"{path}/x"):
        with pytest.raises(ExchangeError):
            open_existing(wrong, 64, is_writable=False)
    for num_bytes in (63, 65, 0):
        with pytest.raises(ExchangeError, match="regular one of this user"):
            open_existing(str(path), num_bytes, is_writable=False)


def test_another_users_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = create(tmp_path, "target", 64)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ExchangeError, match="of this user"):
        open_existing(str(path), 64, is_writable=False)


def test_a_mapping_sees_what_is_written_and_lives_as_long_as_its_views(tmp_path: Path) -> None:
    path, descriptor = create(tmp_path, "target", 128)
    writer, reader = map_bytes(descriptor, 128, is_writable=True), map_bytes(descriptor, 128, is_writable=False)
    writer[5] = 7
    assert reader[5] == 7 and path.read_bytes()[5] == 7
    view = reader[64:]
    del reader
    writer[64] = 9
    assert view[0] == 9 and num_mappings(path) == 2
    del view, writer
    assert num_mappings(path) == 0


def num_mappings(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


def test_a_dead_owners_file_is_swept_and_a_living_ones_stays(tmp_path: Path) -> None:
    mine, _ = create(tmp_path, "target", 64)
    dead = subprocess.run(  # noqa: S603
        [sys.executable, "-c", DIE_WITH_A_FILE, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=False
    ).stdout.strip()
    assert (tmp_path / dead).exists()
    assert sweep(tmp_path) == 1
    assert sorted(tmp_path.iterdir()) == [mine]


def test_only_files_of_our_name_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = f"tandem-{'0' * 32}.target"
    others = ["tandem-notes.target", f"tandem-{'0' * 32}.txt", f"x{ours}", f"{ours}~"]
    for name in others:
        (tmp_path / name).write_bytes(b"keep")
    (tmp_path / f"tandem-{'1' * 32}.drafts").symlink_to(tmp_path / others[0])
    (tmp_path / f"tandem-{'2' * 32}.drafts").mkdir()
    os.mkfifo(tmp_path / f"tandem-{'3' * 32}.drafts")
    kept = set(tmp_path.iterdir())
    (tmp_path / ours).write_bytes(b"stale")
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert sweep(tmp_path) == 0, "it is another user's"
    monkeypatch.undo()
    assert sweep(tmp_path) == 1
    assert set(tmp_path.iterdir()) == kept


def test_a_file_swept_before_it_was_locked_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, swept = fcntl.flock, []

    def sweep_first(descriptor: int, operation: int) -> None:
        if not swept:
            swept.extend(tmp_path.iterdir())
            swept[0].unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    path, _ = create(tmp_path, "drafts", 64)
    assert [path] == list(tmp_path.iterdir()) and path not in swept
