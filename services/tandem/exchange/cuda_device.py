"""A GPU whose memory can be shared, as settings name it."""

import importlib.util

import torch

from tandem.core.errors import ConfigError


def cuda_device(name: str) -> torch.device:
    """The device, with its index.

    Args:
        name: `cuda`, which is the first one, or `cuda:1` and so on.

    Raises:
        ConfigError: there is no such device, or what sharing needs is not installed.
    """
    index = torch.device(name).index or 0
    if index >= torch.cuda.device_count():
        raise ConfigError(f"--device {name}: {torch.cuda.device_count()} CUDA devices are visible here")
    if not torch.cuda.is_available():
        raise ConfigError(f"--device {name}: CUDA does not start here; a PID namespace needs a /proc of its own")
    if not importlib.util.find_spec("cuda"):
        raise ConfigError("sharing GPU memory needs the package cuda-bindings: pip install 'tandem[cuda]'")
    return torch.device("cuda", index)
