"""The product of rows and 8-bit weights on a GPU: weights are widened in registers, rows stay as they are.

A step of few rows waits for the weights, so half the bytes are half the time, and nothing is lost by leaving the rows
in 16 bits. Outputs are the rows of each tile and the step's rows its columns: the tensor cores want at least 64 rows
and are content with 8 columns.

Rows are batch-invariant: the inner dimension is cut into splits that depend on the matrix alone, each is summed in one
order, and their sums are added from the first to the last. Splits are computed side by side, so that a narrow matrix
fills the GPU too, and whoever finishes a tile last adds them up.

Measured on an H100 at the sizes of 31B, in microseconds for the products of a layer: at 8 rows cuBLAS takes 352 in
bfloat16. With the operands the other way round, Triton uses older instructions for up to 32 rows, which take 194, but
round otherwise than those that more rows need. torch's scaled product is the fastest from 64 rows on (234 at 64), but
rounds rows to 8 bits.
"""

import torch
import triton
import triton.language as tl

_WANTED_TILES = 250  # times splits: nearly two a multiprocessor of an H100. More make the adding-up dear
_MOST_SPLITS = 8
_MOST_ROWS = 256  # that are computed side by side where there are several splits: bounds their sums
_BLOCK_INNER = 128
_LEAST_OUTPUTS, _LEAST_ROWS = 64, 16  # of a tile


@triton.jit(do_not_specialize=["num_rows"])
def _product(
    rows,  # [T, in_features]
    weights,  # [out_features, in_features] float8
    scales,  # [out_features] float32
    output,  # [T, out_features]
    sums,  # [num_splits, T, out_features] float32, where there are several splits
    arrivals,  # [tiles] int32: zeros, and zeros again when done
    num_rows,
    out_features,
    in_features,
    split_size,  # of the inner dimension, a multiple of BLOCK_INNER
    IS_SPLIT: tl.constexpr,  # whether there are several
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """One tile of outputs and rows over one split."""
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    is_row, is_column = row < num_rows, column < out_features
    place = tl.arange(0, BLOCK_INNER)
    weight_at = weights + column[:, None].to(tl.int64) * in_features + place[None, :]
    row_at = rows + row[None, :].to(tl.int64) * in_features + place[:, None]
    split = tl.program_id(2)
    total = tl.zeros((BLOCK_OUTPUTS, BLOCK_ROWS), tl.float32)
    for inner in range(split * split_size, tl.minimum((split + 1) * split_size, in_features), BLOCK_INNER):
        is_inner = inner + place < in_features
        w = tl.load(weight_at + inner, mask=is_column[:, None] & is_inner[None, :], other=0.0)
        x = tl.load(row_at + inner, mask=is_row[None, :] & is_inner[:, None], other=0.0)
        # By way of float32: straight to bfloat16 is a slow instruction.
        total = tl.dot(w.to(tl.float32).to(x.dtype), x, total, input_precision="ieee")
    is_output = is_column[:, None] & is_row[None, :]
    at = row[None, :].to(tl.int64) * out_features + column[:, None]
    if IS_SPLIT:
        part = num_rows.to(tl.int64) * out_features
        tl.store(sums + split * part + at, total, mask=is_output)
        tl.debug_barrier()
        tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
        num_splits = tl.num_programs(2)
        if tl.atomic_add(arrivals + tile, 1, sem="acq_rel") < num_splits - 1:
            return
        tl.store(arrivals + tile, 0)
        total = tl.load(sums + at, mask=is_output, other=0.0, cache_modifier=".cg")
        for other in range(1, num_splits):
            total += tl.load(sums + other * part + at, mask=is_output, other=0.0, cache_modifier=".cg")
    scale = tl.load(scales + column, mask=is_column, other=0.0)
    tl.store(output + at, (total * scale[:, None]).to(output.dtype.element_ty), mask=is_output)


def arrivals_for(out_features: int, device: torch.device) -> torch.Tensor:  # [tiles] int32
    """What `multiply` counts in: one for each matrix, since calls with one must follow each other."""
    most_tiles = triton.cdiv(out_features, _LEAST_OUTPUTS) * triton.cdiv(_MOST_ROWS, _LEAST_ROWS)
    return torch.zeros(most_tiles, dtype=torch.int32, device=device)


def multiply(
    rows: torch.Tensor,  # [T, in_features]
    weights: torch.Tensor,  # [out_features, in_features] float8
    scales: torch.Tensor,  # [out_features] float32
    arrivals: torch.Tensor,  # [tiles] int32, from `arrivals_for`
) -> torch.Tensor:  # [T, out_features]
    """`rows @ weights.t() * scales`, summed in float32."""
    assert rows.is_contiguous() and weights.is_contiguous()
    output = rows.new_empty(len(rows), len(weights))
    num_splits, split_size = _splits(*weights.shape)
    num_together = _MOST_ROWS if num_splits > 1 else max(1, len(rows))
    for some, results in zip(rows.split(num_together), output.split(num_together), strict=True):
        _launch(some, weights, scales, results, arrivals, num_splits, split_size)
    return output


def _launch(
    rows: torch.Tensor,  # [T, in_features]
    weights: torch.Tensor,  # [out_features, in_features]
    scales: torch.Tensor,  # [out_features]
    output: torch.Tensor,  # [T, out_features], to be written
    arrivals: torch.Tensor,  # [tiles]
    num_splits: int,
    split_size: int,
) -> None:
    (num_rows, in_features), out_features = rows.shape, weights.shape[0]
    is_split = num_splits > 1
    sums = rows.new_empty((num_splits, num_rows, out_features) if is_split else 1, dtype=torch.float32)
    tile = _tile(num_rows, rows.dtype)
    grid = triton.cdiv(out_features, tile["BLOCK_OUTPUTS"]), triton.cdiv(num_rows, tile["BLOCK_ROWS"]), num_splits
    _product[grid](
        rows,
        weights,
        scales,
        output,
        sums,
        arrivals,
        num_rows,
        out_features,
        in_features,
        split_size,
        IS_SPLIT=is_split,
        **tile,
    )


def _splits(out_features: int, in_features: int) -> tuple[int, int]:
    """How many, and their size."""
    num_blocks = triton.cdiv(in_features, _BLOCK_INNER)
    wanted = triton.cdiv(_WANTED_TILES, triton.cdiv(out_features, _LEAST_OUTPUTS))
    size = triton.cdiv(num_blocks, min(wanted, _MOST_SPLITS, num_blocks))
    return triton.cdiv(num_blocks, size), size * _BLOCK_INNER


def _tile(num_rows: int, dtype: torch.dtype) -> dict[str, int]:
    """The shape of a program's tile, and how it is run. None of it reaches the order of a sum."""
    if dtype == torch.float32:
        return {"BLOCK_OUTPUTS": 64, "BLOCK_ROWS": 16, "BLOCK_INNER": 64, "num_stages": 2, "num_warps": 4}
    block_rows = min(max(triton.next_power_of_2(num_rows), _LEAST_ROWS), _MOST_ROWS)
    if block_rows <= 64:
        return {"BLOCK_OUTPUTS": 64, "BLOCK_ROWS": block_rows, "BLOCK_INNER": 128, "num_stages": 4, "num_warps": 4}
    return {"BLOCK_OUTPUTS": 128, "BLOCK_ROWS": block_rows, "BLOCK_INNER": 64, "num_stages": 4, "num_warps": 8}
