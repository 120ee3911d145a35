"""Where the networks train: compiled kernels on a GPU, and plain ones on a CPU or where compiling fails."""

from collections.abc import Callable
from typing import ParamSpec

import torch
from torch import Tensor, nn

from training.network import Mask, build_masks

Say = Callable[[str], None]  # prints one line of progress
_Inputs = ParamSpec("_Inputs")


class Accelerator:
    """The device, its number format, and whether code is compiled for it."""

    def __init__(self) -> None:
        """Take the first GPU when there is one."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.is_gpu = self.device.type == "cuda"
        self.is_compiled = self.is_gpu
        self.dtype = torch.bfloat16 if self.is_gpu else torch.float32  # of activations; weights stay float32
        self.name = torch.cuda.get_device_name() if self.is_gpu else "CPU"
        if self.is_compiled:
            torch._dynamo.config.recompile_limit = 64  # the layers of both networks share one function

    def compile_layers(self, layers: nn.ModuleList) -> None:
        """Compile each of `layers` by itself; layers of one kind share their code."""
        if self.is_compiled:
            for layer in layers:
                if layer._compiled_call_impl is None:
                    layer.compile(dynamic=False)

    def compiled(self, function: Callable[_Inputs, Tensor]) -> Callable[_Inputs, Tensor]:
        """The function, compiled if anything is."""
        return torch.compile(function, dynamic=False) if self.is_compiled else function

    def masks(self, length: int, window: int) -> dict[bool, Mask]:
        """Causal masks over `length` positions in the form that the layers take here."""
        return build_masks(length, window, self.device, blocks=self.is_compiled)

    def settles(self, trial: Callable[[], object], say: Say) -> bool:
        """Run one step as a trial. Where its compiled form fails, everything is plain from then on: False."""
        if not self.is_compiled:
            return True
        try:
            trial()
            torch.cuda.synchronize()
        except Exception as error:  # whatever a compiler or its kernels may raise
            say(f"compiling failed, training goes on without: {type(error).__name__}: {str(error)[:2000]}")
            self.is_compiled = False
            torch.compiler.set_stance("force_eager")
            torch.cuda.empty_cache()
        return self.is_compiled
