"""What a process tells of itself when it is asked: its memory, and what its kernels did for a while.

The process listens on a socket of its own, with a thread that does nothing else; nothing is measured until somebody
asks. Kernels are those of the process alone, whatever stream or graph they ran in.
"""

import json
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

MAX_KERNELS = 20
# Calls that keep a thread until the device has done something.
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize", "cudaMemcpy")


def answer_probes(path: str, device: str) -> None:
    """Answers on a Unix socket from now on: a line of JSON asks, a line answers."""
    listener = socket.socket(socket.AF_UNIX)
    Path(path).unlink(missing_ok=True)  # of a process before this one
    listener.bind(path)
    listener.listen()
    threading.Thread(target=_answer_all, args=(listener, device), name="probe", daemon=True).start()


def _answer_all(listener: socket.socket, device: str) -> None:
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as lines:
            seconds = json.loads(lines.readline())["profile_seconds"]
            answer = {"host_bytes": _host_bytes(), "gpu_bytes": _gpu_bytes(device)}
            if seconds and device == "cuda":
                answer["profile"] = _profile(seconds)
            lines.write(json.dumps(answer) + "\n")


def _host_bytes() -> int | None:
    """Memory of this process that is in no file; None where the kernel does not say."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in status if line.startswith("RssAnon:")), None)


def _gpu_bytes(device: str) -> int | None:
    """Most that torch ever held of the device for this process, what it kept for later included."""
    return torch.cuda.max_memory_reserved() if device == "cuda" else None


def _profile(seconds: float) -> dict[str, Any]:
    """The device's work and the host's waits over a while."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        started_at = time.perf_counter()
        time.sleep(seconds)
        ended_at = time.perf_counter()
    spans: list[tuple[float, float]] = []
    by_name: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    waits: Counter[str] = Counter()
    for event in profiler.events() or ():
        if event.device_type == DeviceType.CUDA:
            spans.append((event.time_range.start, event.time_range.end))
            by_name[event.name] += event.time_range.elapsed_us()
            counts[event.name] += 1
        elif event.name in WAITS:
            waits[event.name] += 1
    return {
        "started_at": started_at,
        "ended_at": ended_at,
        "busy_seconds": _covered(spans) / 1e6,
        "kernels": [(name, us / 1e6, counts[name]) for name, us in by_name.most_common(MAX_KERNELS)],
        "waits": dict(waits),
    }


def _covered(spans: list[tuple[float, float]]) -> float:
    """How much of the time line any of the spans covers."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
