"""How fast the device reads: `python -m tandem.cli.bench.preset.bandwidth cuda`, a process that ends with the answer.

A line of JSON is printed: the device's name, and bytes a second, the best of several reads of far more than any cache
holds.
"""

import json
import sys
import time

import torch

from tandem.cli.bench.machine import processor

CUDA_BYTES = 8 << 30
CPU_BYTES = 256 << 20
NUM_READS = 10


def read_bytes_per_second(device: str) -> float:
    """Sums a large tensor again and again; the sum is no more work than the reading."""
    num_bytes = CUDA_BYTES if device == "cuda" else CPU_BYTES
    numbers = torch.randn(num_bytes // 4, device=device)
    return num_bytes / min(_seconds(numbers, device) for _ in range(NUM_READS))


def _seconds(numbers: torch.Tensor, device: str) -> float:  # [N] float32
    if device == "cuda":
        torch.cuda.synchronize()
    started_at = time.perf_counter()
    total = numbers.sum()
    total.item()  # waits for the device
    return time.perf_counter() - started_at


if __name__ == "__main__":
    name = torch.cuda.get_device_name() if sys.argv[1] == "cuda" else processor()
    print(json.dumps({"name": name, "read_bytes_per_second": read_bytes_per_second(sys.argv[1])}))
