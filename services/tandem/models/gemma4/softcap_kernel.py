"""The softcap of logits on a GPU, in one pass: cap * tanh(x / cap) in float32 of products in 16 bits."""

import torch
import triton
import triton.language as tl

_BLOCK = 4096


@triton.jit
def _cap_rows(
    product,  # [R, V]
    output,  # [R, V] float32
    cap,
    size,
    BLOCK: tl.constexpr,
):
    row, columns = tl.program_id(1).to(tl.int64), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_column = columns < size
    z = tl.load(product + row * size + columns, mask=is_column, other=0.0).to(tl.float32) / cap
    square = z * z
    # tanh(z) = 2 sigmoid(2 z) - 1 would lose the small ones, for which a few terms of its series are exact enough.
    series = -1.0 / 3.0 + square * (2.0 / 15.0 + square * (-17.0 / 315.0 + square * (62.0 / 2835.0)))
    tanh = tl.where(square < 0.09, z + z * square * series, 2.0 * tl.sigmoid(2.0 * z) - 1.0)
    tl.store(output + row * size + columns, cap * tanh, mask=is_column)


def cap_rows(product: torch.Tensor, cap: float) -> torch.Tensor:  # [R, V] -> [R, V] float32
    """The capped rows. Does not wait for the device."""
    product = product.contiguous()
    num_rows, size = product.shape
    output = torch.empty(num_rows, size, dtype=torch.float32, device=product.device)
    if num_rows:
        _cap_rows[triton.cdiv(size, _BLOCK), num_rows](product, output, cap, size, BLOCK=_BLOCK)
    return output
