"""Files in a memory-backed directory: made, found again, and swept away after their owner died.

A file's maker holds a lock on it for as long as it lives, however it dies. So a file of our name that can be locked is
nobody's any more.
"""

import fcntl
import mmap
import os
import re
import secrets
import stat
import warnings
from pathlib import Path

import torch

from tandem.core.errors import ExchangeError

_NAME = re.compile(r"tandem-[0-9a-f]{32}\.(target|drafts|flags)")
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


def create(directory: Path, kind: str, num_bytes: int) -> tuple[Path, int]:
    """Makes a file of zeros under a random name, readable and writable by this user only, and locks it.

    All of its memory is taken now: a directory without room is an error here, not a dead process at some later write.

    Args:
        directory: an existing directory.
        kind: "target", "drafts" or "flags".
        num_bytes: its size.

    Returns:
        Its path and an open descriptor.

    Raises:
        ExchangeError: the directory does not exist, may not be written, or is full.
    """
    try:
        while True:
            path = directory / f"tandem-{secrets.token_hex(16)}.{kind}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                break
            os.close(descriptor)  # another process swept it away before it was locked
    except OSError as error:
        raise ExchangeError(f"cannot make a file in {directory}: {error.strerror}") from None
    try:
        os.ftruncate(descriptor, num_bytes)
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError as error:
        os.close(descriptor)
        path.unlink()
        raise ExchangeError(f"cannot take {num_bytes} bytes in {directory}: {error.strerror}") from None
    return path, descriptor


def open_existing(path: str, num_bytes: int, is_writable: bool) -> int:
    """Opens a file that another process of this user made; returns the descriptor.

    Raises:
        ExchangeError: it is not there, or not such a file.
    """
    if not os.path.isabs(path) or "\0" in path:
        raise ExchangeError("a file's path must be absolute")
    try:
        # Without O_NONBLOCK, opening a pipe would wait.
        descriptor = os.open(path, (os.O_RDWR if is_writable else os.O_RDONLY) | os.O_NONBLOCK | _FLAGS)
    except OSError as error:
        raise ExchangeError(
            f"cannot open the file: {error.strerror}; verifier and drafter must see one and the same exchange directory"
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size != num_bytes:
        os.close(descriptor)
        raise ExchangeError(f"the file must be a regular one of this user, {num_bytes} bytes long")
    return descriptor


def map_bytes(descriptor: int, num_bytes: int, is_writable: bool) -> torch.Tensor:  # [num_bytes] uint8
    """The file's bytes, for as long as any view of the tensor lives. Writing to a read-only one ends the process."""
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if is_writable else 0)
    mapping = mmap.mmap(descriptor, num_bytes, mmap.MAP_SHARED, protection)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(mapping, dtype=torch.uint8)


def sweep(directory: Path) -> int:
    """Removes what dead processes of this user left behind in a directory; returns how many files."""
    num_removed = 0
    for path in [path for path in _entries(directory) if _NAME.fullmatch(path.name)]:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _FLAGS)
        except OSError:
            continue
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                num_removed += 1
        except OSError:  # its owner lives, or another process swept it away
            pass
        finally:
            os.close(descriptor)
    return num_removed


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []
