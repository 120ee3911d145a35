"""Memory of the processes under measurement."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Of a process' own and shared with others; pages of files, such as those of libraries, can be dropped and count not.
_FIELDS = ("RssAnon:", "RssShmem:")


@dataclass(frozen=True)
class Memory:
    """Bytes by service; None where nobody knows."""

    host: Mapping[str, int | None]
    device: Mapping[str, int | None]  # most that torch held at a time, for later use included
    device_in_use: int | None  # by all processes together, those contexts included that no process counts as its own


def host_bytes(pid: int | str) -> int | None:
    """Memory of a process on the host; None where the kernel does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    sizes = [1024 * int(line.split()[1]) for line in lines if line.startswith(_FIELDS)]
    return sum(sizes) if sizes else None
