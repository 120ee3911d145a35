"""Whether kernels overlap: programmatic dependent launch, which Hopper GPUs and later ones have.

A kernel that says so early lets the next one set off while it runs; the next one does what depends on no other kernel,
and then waits until the one before has ended. Since every such kernel waits before it lets others set off, whatever is
older than the kernel before is safe to read at once.
"""

from functools import cache

import torch


@cache
def is_overlapping(device: torch.device) -> bool:
    """Whether kernels on a device can."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
