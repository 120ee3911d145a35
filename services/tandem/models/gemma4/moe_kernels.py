"""The experts on a GPU: two Triton kernels over rows sorted by expert.

A program computes one tile of one expert's rows; programs without rows return at once, so that nothing of the routing
is needed on the host. Programs that want the same weights are neighbours: the first one brings them from memory, the
others find them in the cache. Up to `_NUM_SKINNY_ROWS` rows, as in every verification, all tiles have the same shape
and every sum runs through the inner dimension in the same order, so that a row rounds as it does alone.
`moe.mix_by_grouped_products` is the plain form.
"""

import torch
import triton
import triton.language as tl

from tandem.attention.widen_kernel import widened
from tandem.models.gemma4.activation_kernel import gelu
from tandem.models.gemma4.expert_matrices import ExpertMatrices

_NUM_SKINNY_ROWS = 256


@triton.jit
def _gate_up_kernel(
    rows,  # [T, hidden_size]
    gate_up,  # [num_experts, 2 * size, hidden_size]
    scales,  # [num_experts, 2 * size] float32 where weights have 8 bits, otherwise None
    activated,  # [T * k, size], in expert order
    order,  # [T * k] int64
    ends,  # [num_experts] int32
    top_k,
    hidden_size: tl.constexpr,
    size: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """gelu(gate(y)) * up(y) for one tile: a program reads its columns of gate and of up."""
    expert = tl.program_id(2)
    start = tl.load(ends + expert - 1, mask=expert > 0, other=0)
    end = tl.load(ends + expert)
    first = start + tl.program_id(0) * BLOCK_ROWS
    if first >= end:
        return
    places = first + tl.arange(0, BLOCK_ROWS)
    is_row = places < end
    sources = tl.load(order + places, mask=is_row, other=0) // top_k
    columns = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    is_column = columns < size
    matrix = gate_up + expert.to(tl.int64) * (2 * size * hidden_size)
    gate = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    up = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for inner_start in range(0, hidden_size, BLOCK_INNER):
        inner = inner_start + tl.arange(0, BLOCK_INNER)
        is_inner = inner < hidden_size
        x = tl.load(
            rows + sources[:, None] * hidden_size + inner[None, :], mask=is_row[:, None] & is_inner[None, :], other=0.0
        )
        weights = matrix + columns[None, :] * hidden_size + inner[:, None]
        mask = is_inner[:, None] & is_column[None, :]
        gate = tl.dot(x, widened(tl.load(weights, mask=mask, other=0.0), x), gate, input_precision="ieee")
        up_weights = tl.load(weights + size * hidden_size, mask=mask, other=0.0)
        up = tl.dot(x, widened(up_weights, x), up, input_precision="ieee")
    if scales is not None:
        scale = scales + expert * (2 * size) + columns
        gate *= tl.load(scale, mask=is_column, other=0.0)[None, :]
        up *= tl.load(scale + size, mask=is_column, other=0.0)[None, :]
    tl.store(
        activated + places[:, None].to(tl.int64) * size + columns[None, :],
        (gelu(gate) * up).to(activated.dtype.element_ty),
        mask=is_row[:, None] & is_column[None, :],
    )


@triton.jit
def _down_kernel(
    activated,  # [T * k, size], in expert order
    down,  # [num_experts, hidden_size, size]
    scales,  # [num_experts, hidden_size] float32 where weights have 8 bits, otherwise None
    row_weights,  # [T * k] float32
    output,  # [T * k, hidden_size] float32
    order,  # [T * k] int64
    ends,  # [num_experts] int32
    hidden_size: tl.constexpr,
    size: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """down(activated) times the row's weight for one tile, written where the row came from."""
    expert = tl.program_id(2)
    start = tl.load(ends + expert - 1, mask=expert > 0, other=0)
    end = tl.load(ends + expert)
    first = start + tl.program_id(0) * BLOCK_ROWS
    if first >= end:
        return
    places = first + tl.arange(0, BLOCK_ROWS)
    is_row = places < end
    targets = tl.load(order + places, mask=is_row, other=0)
    columns = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    is_column = columns < hidden_size
    matrix = down + expert.to(tl.int64) * (hidden_size * size)
    product = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for inner_start in range(0, size, BLOCK_INNER):
        inner = inner_start + tl.arange(0, BLOCK_INNER)
        is_inner = inner < size
        x = tl.load(
            activated + places[:, None].to(tl.int64) * size + inner[None, :],
            mask=is_row[:, None] & is_inner[None, :],
            other=0.0,
        )
        weights = tl.load(
            matrix + columns[None, :] * size + inner[:, None],
            mask=is_inner[:, None] & is_column[None, :],
            other=0.0,
        )
        product = tl.dot(x, widened(weights, x), product, input_precision="ieee")
    if scales is not None:
        product *= tl.load(scales + expert * hidden_size + columns, mask=is_column, other=0.0)[None, :]
    product *= tl.load(row_weights + targets, mask=is_row, other=0.0)[:, None]
    tl.store(
        output + targets[:, None] * hidden_size + columns[None, :], product, mask=is_row[:, None] & is_column[None, :]
    )


def mix_by_kernels(
    rows: torch.Tensor,  # [T, hidden_size]
    gate_up: ExpertMatrices,  # hidden_size to 2 * size
    down: ExpertMatrices,  # size to hidden_size
    weights: torch.Tensor,  # [T, k] float32
    order: torch.Tensor,  # [T * k] int64: places of the flattened choices, in expert order
    sorted_ids: torch.Tensor,  # [T * k]: their experts, which `ends` says as well
    ends: torch.Tensor,  # [num_experts] int32: where each expert's choices end
) -> torch.Tensor:  # [T, hidden_size]
    """Each row's weighted sum over the experts that it chose. No row may choose an expert twice."""
    assert gate_up.matrices.stride(1) == down.matrices.stride(1) == 1, "each output's weights lie together"
    assert rows.is_contiguous() and weights.is_contiguous()
    (num_rows, hidden_size), top_k = rows.shape, weights.shape[1]
    num_experts, size = down.matrices.shape[:2]
    activated = rows.new_empty(num_rows * top_k, size)
    output = torch.empty(num_rows, top_k, hidden_size, dtype=torch.float32, device=rows.device)
    block_rows = 16 if num_rows <= _NUM_SKINNY_ROWS else 64
    num_blocks = triton.cdiv(num_rows, block_rows)
    _gate_up_kernel[num_blocks, triton.cdiv(size, 32), num_experts](
        rows,
        gate_up.matrices,
        gate_up.scales,
        activated,
        order,
        ends,
        top_k,
        hidden_size,
        size,
        block_rows,
        32,
        128,
        num_stages=3,
    )
    _down_kernel[num_blocks, triton.cdiv(hidden_size, 64), num_experts](
        activated,
        down.matrices,
        down.scales,
        weights,
        output,
        order,
        ends,
        hidden_size,
        size,
        block_rows,
        64,
        64,
        num_stages=3,
    )
    return output.sum(1).to(rows.dtype)
