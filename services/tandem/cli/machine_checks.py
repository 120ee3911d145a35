"""What `tandem doctor` looks at on this machine."""

import enum
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tandem.core.errors import ConfigError

OLDEST_PYTHON = (3, 11)
GATEWAY_PACKAGES = ("grpcio", "protobuf", "uvloop", "tokenizers", "jinja2")
ENGINE_PACKAGES = ("torch", "numpy", "safetensors")
# The demo pair with its default cache needs about 50 MB; containers often have 64 MB in all.
SHARED_MEMORY_BYTES = 256 << 20
# Weights are read in their own format and may be held in a wider one; plus KV and the libraries themselves.
WEIGHT_FACTOR = 2
REST_BYTES = 1 << 30


class Verdict(enum.Enum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"  # works, or can, but not as well as it should
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def has_engine() -> bool:
    """Whether verifier and drafter are installed, not the gateway alone."""
    return importlib.util.find_spec("torch") is not None


def check_machine(target: Path, draft_model: Path | None, shared_memory: str) -> Iterator[Check]:
    """Looks at Python, packages, processor, memory and checkpoints, in this order.

    Args:
        target: folder of the target's checkpoint.
        draft_model: folder of the drafter's; None to do without.
        shared_memory: memory-backed folder for verifier and drafter.
    """
    yield _python()
    yield _packages("packages", GATEWAY_PACKAGES, Verdict.FAIL, "install tandem[gateway]")
    yield _packages("engine", ENGINE_PACKAGES, Verdict.WARN, "only a gateway can run here; install tandem[engine]")
    yield _processor()
    yield _memory(target)
    yield _shared_memory(shared_memory)
    yield _cuda()
    yield _models(target, draft_model)


def _python() -> Check:
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", Verdict.FAIL, platform.python_version(), "Tandem needs Python 3.11 or newer")
    return Check("python", Verdict.OK, platform.python_version())


def _packages(name: str, packages: tuple[str, ...], verdict: Verdict, advice: str) -> Check:
    found, missing = [], []
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        return Check(name, verdict, f"missing: {', '.join(missing)}", advice)
    return Check(name, Verdict.OK, ", ".join(found))


def _processor() -> Check:
    cores = f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
    if not has_engine():
        return Check("processor", Verdict.OK, cores)
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    found = f"{cores}, {torch.get_num_threads()} torch threads, {capability}"
    if capability in ("DEFAULT", "NO AVX"):
        return Check("processor", Verdict.WARN, found, "without vector instructions, text comes slowly")
    return Check("processor", Verdict.OK, found)


def _memory(target: Path) -> Check:
    available = _available_bytes()
    if available is None:
        return Check("memory", Verdict.OK, "not known on this system")
    weights = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    needed = WEIGHT_FACTOR * weights + REST_BYTES
    found = f"{_size(available)} available"
    if available < needed:
        return Check("memory", Verdict.WARN, found, f"{target.name} may need {_size(needed)}")
    return Check("memory", Verdict.OK, found)


def _available_bytes() -> int | None:
    """Memory that could be had now: by this machine's account and by that of the container."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    try:
        limit, used = (Path("/sys/fs/cgroup", name).read_text() for name in ("memory.max", "memory.current"))
        return min(available, int(limit) - int(used))
    except (OSError, ValueError):  # no container, or one without a limit
        return available


def _shared_memory(folder: str) -> Check:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("shared memory", Verdict.FAIL, f"{folder}: {error.strerror}", "set --exchange-directory")
    found = f"{folder}, {_size(free)} free"
    if not os.access(folder, os.W_OK):
        return Check("shared memory", Verdict.FAIL, f"{folder} cannot be written", "set --exchange-directory")
    if free < SHARED_MEMORY_BYTES:
        return Check("shared memory", Verdict.WARN, found, "give the container more, such as --shm-size=1g")
    return Check("shared memory", Verdict.OK, found)


def _cuda() -> Check:
    if not has_engine():
        return Check("cuda", Verdict.OK, "not looked for")
    import torch

    if torch.cuda.is_available():
        return Check("cuda", Verdict.OK, ", ".join(torch.cuda.get_device_name(i) for i in range(_num_devices())))
    return Check("cuda", Verdict.OK, "none; the CPU serves")


def _num_devices() -> int:
    import torch

    return torch.cuda.device_count()


def _models(target: Path, draft_model: Path | None) -> Check:
    from tandem.models.gemma4.config import read_target_config
    from tandem.models.gemma4.drafter_config import read_drafter_config
    from tandem.models.hub import HubCommit

    advice = "give another --target and --draft-model"
    try:
        for reference in filter(None, (target, draft_model)):
            if not reference.is_dir() and HubCommit.parse(str(reference)):
                return Check("models", Verdict.OK, f"{reference}: fetched from the hub when it is first served")
        target_config = read_target_config(target)
        drafter_config = read_drafter_config(draft_model) if draft_model else None
        if drafter_config and has_engine():
            from tandem.models.gemma4.weights import check_pair

            check_pair(drafter_config, target_config)
    except ConfigError as error:
        return Check("models", Verdict.FAIL, str(error), advice)
    for folder in filter(None, (target, draft_model)):
        if not any(folder.glob("*.safetensors")):
            return Check("models", Verdict.FAIL, f"{folder} holds no weights", advice)
    if not (target / "tokenizer.json").is_file():
        return Check("models", Verdict.FAIL, f"{target} holds no tokenizer.json", advice)
    drafter = draft_model.name if draft_model else "no drafter"
    return Check("models", Verdict.OK, f"{target.name} ({target_config.num_hidden_layers} layers), {drafter}")


def _size(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.1f} GiB"
