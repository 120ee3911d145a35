"""Compiles every kernel for a Hopper GPU, which takes none: `python -m tests.kernel_resources`.

Kernels are called as steps of Gemma 4 31B, its drafter and 26B-A4B call them, with tensors of the CPU: instead of being
launched, each is compiled. A line each: what is called, then for each kernel registers of a thread, bytes that did not
fit them, and bytes of shared memory. A multiprocessor has 65,536 registers and 227 KiB.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"  # read when triton is imported

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from tandem.attention import paged_kernel, plan_kernel
from tandem.attention.device_batch import DeviceBatch
from tandem.attention.overlap import is_overlapping
from tandem.attention.splits import GROWING, WINDOWED
from tandem.models.gemma4 import (
    activation_kernel,
    embed_kernel,
    fp8_kernel,
    head_kernel,
    norm_kernel,
    skinny_kernel,
    softcap_kernel,
)
from tandem.models.gemma4.candidate_kernel import fused_candidate_logits
from tandem.models.gemma4.expert_matrices import ExpertMatrices
from tandem.models.gemma4.fp8_linear import FP8
from tandem.models.gemma4.moe_kernels import mix_by_kernels
from tandem.models.gemma4.presets import target_preset
from tandem.sampling.fused_choice import fused_sample
from tandem.sampling.rows import NO_TOP_K, SamplingRows
from tandem.sampling.rows_kernel import read_rows

HOPPER = GPUTarget("cuda", 90, 32)
CPU = torch.device("cpu")
BF16 = torch.bfloat16
TARGET, MIXTURE = target_preset("gemma-4-31b"), target_preset("gemma-4-26b-a4b")
VOCABULARY, HIDDEN, NUM_HEADS = TARGET.vocab_size, TARGET.hidden_size, TARGET.num_attention_heads
SLIDING, FULL = TARGET.kv_groups
DRAFTER_HIDDEN = 1024
BLOCK_SIZE = 32

Call = tuple[str, Callable[[], object]]


@dataclass(frozen=True)
class Resources:
    """What one kernel needs."""

    call: str
    module: str
    kernel: str
    registers: int  # of a thread
    spilled: int  # bytes of a thread
    shared: int  # bytes of a program
    num_warps: int


class Hopper:
    """A driver of a GPU that is only compiled for."""

    def get_current_target(self) -> GPUTarget:
        return HOPPER

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device


def empty(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    """Memory that is never touched, so that its size costs nothing."""
    return torch.empty(shape, dtype=dtype)


def zeros(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers that the host may look at."""
    return torch.zeros(shape, dtype=dtype)


def short(dtype: torch.dtype) -> str:
    """Its name."""
    return str(dtype).removeprefix("torch.")


def layer_calls() -> Iterator[Call]:
    """What stands between the products of a step of 8 rows."""
    rows, weight = empty(8, HIDDEN), empty(HIDDEN)
    yield "norm", partial(norm_kernel.norm_rows, rows, weight, 1e-6)
    yield "norms of a layer", partial(norm_kernel.norm_rows, rows, weight, 1e-6, rows, empty(1), weight, 1e-6)
    yield "activation", partial(activation_kernel.gate_rows, empty(8, 43008))
    yield "softcap", partial(softcap_kernel.cap_rows, empty(8, VOCABULARY), 30.0)
    tables = empty(VOCABULARY, HIDDEN), empty(), empty(1, HIDDEN)
    yield "embedding", partial(embed_kernel.embed_beside, zeros(1, dtype=torch.int64), *tables)
    for group in TARGET.kv_groups:
        is_k_eq_v = TARGET.attention[group.name].is_k_eq_v
        num_projected = NUM_HEADS + group.num_kv_heads * (1 if is_k_eq_v else 2)
        weights = empty(NUM_HEADS + 2 * group.num_kv_heads, group.head_dim), 1e-6
        angles = empty(8, 1, group.head_dim), empty(8, 1, group.head_dim)
        where = empty(64, *group.slot_shape), zeros(8, dtype=torch.int64), NUM_HEADS, True, is_k_eq_v
        heads = empty(8, num_projected, group.head_dim)
        yield f"heads, {group.name}", partial(head_kernel.arrange_heads, heads, *weights, *angles, *where)


def attention_calls() -> Iterator[Call]:
    """Rounds of one sequence and of many, of the target and of the drafter; with 8-bit keys and values too."""
    for group, block_rows, max_splits in ((SLIDING, 16, 10), (FULL, 64, 16), (FULL, 16, 16)):
        for batch, dtype in product((1, 32), (BF16, FP8)):
            query, kv = empty(batch, NUM_HEADS, group.head_dim), empty(64, *group.slot_shape, dtype=dtype)
            plan = zeros(batch, 6, dtype=torch.int32), zeros(batch, 64, dtype=torch.int32)
            sizes = {"block_size": BLOCK_SIZE, "block_rows": block_rows, "max_splits": max_splits}
            yield (
                f"attention, {group.name}, {block_rows} rows, batch {batch}, {short(dtype)}",
                partial(paged_kernel.attend_paged, query, kv, *plan, **sizes, window=group.window or 1 << 30),
            )
    for group, split_sizes in ((SLIDING, WINDOWED), (FULL, GROWING)):
        numbers, tables = zeros(4, dtype=torch.int64), {group.name: zeros(4, 64, dtype=torch.int32)}
        batch = DeviceBatch(numbers, numbers, numbers, 8, 1023, tables, {group.name: 0})
        yield f"plan, {group.name}", partial(plan_kernel.plan_on_device, batch, group, BLOCK_SIZE, 8, split_sizes)


def product_calls() -> Iterator[Call]:
    """Narrow and wide matrices, of the target and the drafter."""
    for in_features, out_features in ((21504, HIDDEN), (HIDDEN, 16384), (8192, DRAFTER_HIDDEN), (DRAFTER_HIDDEN, 8192)):
        multiply = skinny_kernel.SkinnyProduct(empty(out_features, in_features))
        for count in (1, 64, 128):
            name = f"product, {in_features} to {out_features}, {count} rows"
            yield name, partial(multiply, empty(count, in_features))
    for in_features, out_features in ((21504, HIDDEN), (HIDDEN, 16384)):
        matrix = empty(out_features, in_features, dtype=FP8), empty(out_features, dtype=torch.float32)
        arrivals = fp8_kernel.arrivals_for(out_features, CPU)
        for count in (1, 64, 256):
            name = f"8-bit product, {in_features} to {out_features}, {count} rows"
            yield name, partial(fp8_kernel.multiply, empty(count, in_features), *matrix, arrivals)


def expert_calls() -> Iterator[Call]:
    """The experts of 26B-A4B."""
    experts, hidden_size = MIXTURE.experts, MIXTURE.hidden_size
    assert experts
    size, num_experts, top_k = experts.intermediate_size, experts.num_experts, experts.top_k
    for dtype in (BF16, FP8):
        matrices = [
            ExpertMatrices(num_experts, *shape, dtype, CPU) for shape in ((hidden_size, 2 * size), (size, hidden_size))
        ]
        for one in matrices:
            one.matrices = empty(num_experts, *reversed(one.matrices.shape[1:]), dtype=dtype).mT  # as on a GPU
        for count in (5, 512):
            choices = zeros(count * top_k, dtype=torch.int64)
            chosen = empty(count, top_k, dtype=torch.float32), choices, choices, zeros(num_experts, dtype=torch.int32)
            rows = empty(count, hidden_size)
            yield f"experts, {count} rows, {short(dtype)}", partial(mix_by_kernels, rows, *matrices, *chosen)


def choice_calls() -> Iterator[Call]:
    """From logits to tokens."""
    floats, numbers = zeros(8, dtype=torch.float64), zeros(8, dtype=torch.int64)
    slots = floats, numbers, floats, floats, numbers, numbers
    rows = SamplingRows.from_slots(*slots, numbers)
    for dtype in (torch.float32, BF16):
        yield f"choice from {short(dtype)}", partial(fused_sample, empty(8, VOCABULARY, dtype=dtype), rows)
    yield "rows of slots", partial(read_rows, *slots, 8, NO_TOP_K)
    clusters = zeros(8, 32, dtype=torch.int64)
    yield "candidates", partial(fused_candidate_logits, empty(8, 256), empty(VOCABULARY, 256), clusters, 128)


def all_resources() -> Iterator[Resources]:
    """Compiles, call by call. For a process of its own: kernels cannot be launched in it any more."""
    compiled: dict[tuple[str, str], Any] = {}
    run = JITFunction.run

    def compile_only(self: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        compiled[self.module, self.__name__] = kernel
        return kernel

    JITFunction.run = compile_only  # type: ignore[method-assign]
    triton.runtime.driver.set_active(Hopper())
    for module in list(sys.modules.values()):
        if getattr(module, "is_overlapping", None) is is_overlapping:
            module.is_overlapping = lambda device: True
    for calls in (layer_calls, attention_calls, product_calls, expert_calls, choice_calls):
        for name, call in calls():
            compiled.clear()
            call()
            for (module_name, kernel_name), kernel in compiled.items():
                yield resources(name, module_name, kernel_name, kernel)


def resources(call: str, module: str, name: str, kernel: Any) -> Resources:
    """As the program that reads machine code tells them."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    registers, stack, local = (int(re.findall(rf"{word}:(\d+)", text)[-1]) for word in ("REG", "STACK", "LOCAL"))
    return Resources(call, module, name, registers, stack + local, kernel.metadata.shared, kernel.metadata.num_warps)


def main() -> int:
    """Prints the table, or with --json a line of JSON for each kernel."""
    for one in all_resources():
        line = (
            f"{one.call:<58} {one.kernel:<18} {one.registers:4} registers x {32 * one.num_warps:4}, "
            f"{one.spilled} bytes spilled, {one.shared:7} shared"
        )
        print(json.dumps(asdict(one)) if "--json" in sys.argv else line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
