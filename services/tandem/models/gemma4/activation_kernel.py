"""gelu(gate) * up on a GPU, in one pass over the product that holds both."""

import torch
import triton
import triton.language as tl

from tandem.attention.overlap import is_overlapping

_BLOCK = 1024


@triton.jit
def gelu(x):
    """The approximation by tanh."""
    # tanh(z) = 2 sigmoid(2 z) - 1, so gelu's 0.5 (1 + tanh(z)) is sigmoid(2 z).
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))


@triton.jit
def _gate_rows(
    product,  # [T, 2 * size]
    output,  # [T, size]
    size,
    BLOCK: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    row, columns = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_column = columns < size
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    kind = output.dtype.element_ty
    gate = tl.load(product + row * 2 * size + columns, mask=is_column, other=0.0).to(tl.float32)
    up = tl.load(product + row * 2 * size + size + columns, mask=is_column, other=0.0).to(tl.float32)
    tl.store(output + row * size + columns, (gelu(gate).to(kind).to(tl.float32) * up).to(kind), mask=is_column)


def gate_rows(product: torch.Tensor) -> torch.Tensor:  # [T, 2 * size], gate before up -> [T, size]
    """The activated rows. Does not wait for the device."""
    num_rows, size = product.shape[0], product.shape[1] // 2
    output = product.new_empty(num_rows, size)
    overlaps = is_overlapping(product.device)
    _gate_rows[(num_rows, triton.cdiv(size, _BLOCK))](
        product, output, size, BLOCK=_BLOCK, OVERLAPS=overlaps, launch_pdl=overlaps
    )
    return output
