"""The norm on a GPU, with what stands before and after it, a program a row.

    h = residual + norm(x) * weight, times a scalar        (or no residual: h = norm(x) * weight)
    n = norm(h) * next weight                              (where the next norm follows at once)

Sums are of float32; every value that is a tensor of its own in `norm` is rounded here as it is there.

Kernels overlap (`attention.overlap`): weights are read while the kernel before ends.
"""

import torch
import triton
import triton.language as tl

from tandem.attention.overlap import is_overlapping


@triton.jit
def _norm_rows(
    x,  # [T, SIZE]
    weight,  # [SIZE]
    residual,  # [T, SIZE]
    scalar,  # [1]
    output,  # [T, SIZE]
    next_weight,  # [SIZE]
    next_output,  # [T, SIZE]
    eps,
    next_eps,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    HAS_SCALAR: tl.constexpr,
    HAS_NEXT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * SIZE
    columns = tl.arange(0, BLOCK)
    is_column = columns < SIZE
    kind = output.dtype.element_ty
    gain = tl.load(weight + columns, mask=is_column, other=0.0).to(tl.float32)
    if HAS_NEXT:
        next_gain = tl.load(next_weight + columns, mask=is_column, other=0.0).to(tl.float32)
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    wide = tl.load(x + row + columns, mask=is_column, other=0.0).to(tl.float32)
    length = tl.rsqrt(tl.sum(wide * wide, 0) / SIZE + eps)
    value = (wide * length * gain).to(kind)
    if HAS_RESIDUAL:
        before = tl.load(residual + row + columns, mask=is_column, other=0.0).to(tl.float32)
        value = (before + value.to(tl.float32)).to(kind)
    if HAS_SCALAR:
        value = (value.to(tl.float32) * tl.load(scalar).to(tl.float32)).to(kind)
    tl.store(output + row + columns, value, mask=is_column)
    if HAS_NEXT:
        wide = value.to(tl.float32)
        length = tl.rsqrt(tl.sum(wide * wide, 0) / SIZE + next_eps)
        tl.store(next_output + row + columns, (wide * length * next_gain).to(kind), mask=is_column)


def norm_rows(
    x: torch.Tensor,  # [T, d]
    weight: torch.Tensor,  # [d]
    eps: float,
    residual: torch.Tensor | None = None,  # [T, d]
    scalar: torch.Tensor | None = None,  # [1]
    next_weight: torch.Tensor | None = None,  # [d]
    next_eps: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:  # [T, d] twice: h, and n if there is a next weight
    """One pass over the rows. Does not wait for the device."""
    x = x.contiguous()
    num_rows, size = x.shape
    output = torch.empty_like(x)
    following = torch.empty_like(x) if next_weight is not None else output
    block = triton.next_power_of_2(size)
    overlaps = is_overlapping(x.device)
    _norm_rows[(num_rows,)](
        x,
        weight,
        x if residual is None else residual.contiguous(),
        weight if scalar is None else scalar,
        output,
        weight if next_weight is None else next_weight,
        following,
        eps,
        next_eps,
        SIZE=size,
        BLOCK=block,
        HAS_RESIDUAL=residual is not None,
        HAS_SCALAR=scalar is not None,
        HAS_NEXT=next_weight is not None,
        OVERLAPS=overlaps,
        num_warps=min(16, max(1, block // 512)),
        launch_pdl=overlaps,
    )
    return output, following
