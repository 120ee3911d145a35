"""Where the figures come from: machine and versions."""

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tandem import __version__
from tandem.verifier.config import num_threads

PACKAGES = ("torch", "grpcio", "transformers")


@dataclass(frozen=True)
class Machine:
    """What a figure depends on besides the code."""

    processor: str
    num_cores: int  # that this process may use
    memory_bytes: int | None  # None: not known
    load: float | None  # processes that wanted a core, over the minute before; None: not known
    num_threads: int  # of torch, in the verifier and in transformers
    versions: dict[str, str]


def describe_machine(threads: int) -> Machine:
    """This machine, now.

    Args:
        threads: of torch, as set; 0 for the verifier's choice.
    """
    return Machine(
        processor=processor(),
        num_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        num_threads=num_threads(threads),
        versions={"tandem": __version__, "Python": platform.python_version(), **_package_versions()},
    )


def processor() -> str:
    """Its name, as far as the machine says."""
    return _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    total = _field("/proc/meminfo", "MemTotal")  # such as 24605592 kB
    return int(total.split()[0]) * 1024 if total else None


def _field(path: str, name: str) -> str | None:
    """The first value of a field in one of the kernel's tables; None where there is no such table or field."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions
