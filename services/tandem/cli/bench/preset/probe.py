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
from torch.profiler import ProfilerActivity, profile

from tandem.cli.bench.preset.memory import host_bytes

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
            answer: dict[str, Any] = {"host_bytes": host_bytes("self")}
            if device == "cuda":
                free, total = torch.cuda.mem_get_info()
                answer |= {"device_bytes": torch.cuda.max_memory_reserved(), "device_in_use": total - free}
                if seconds:
                    answer["profile"] = _profile(seconds)
            lines.write(json.dumps(answer) + "\n")


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
        if event.device_type == torch.autograd.DeviceType.CUDA:  # type: ignore[attr-defined]
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
