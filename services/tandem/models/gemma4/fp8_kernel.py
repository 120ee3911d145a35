"""The product of rows and 8-bit weights on a GPU: weights are widened in registers, rows stay as they are.

A step of few rows waits for the weights, so half the bytes are half the time, and nothing is lost by leaving the rows
in 16 bits. Outputs are the rows of each tile and the step's rows its columns: the tensor cores want at least 64 rows
and are content with 8 columns. Several blocks of weights are on their way to each program, and kernels overlap
(programmatic dependent launch), as in `skinny_kernel`.

Rows are batch-invariant: the inner dimension is cut into splits that depend on the matrix alone, each is summed in one
order, and their sums are added from the first to the last. Splits are computed side by side, so that a narrow matrix
fills the GPU too, and whoever finishes a tile last adds them up.
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tandem.attention.overlap import is_overlapping
from tandem.attention.widen_kernel import widened
from tandem.models.gemma4.tile_kernel import announce_weights, write_tile

ALIGNMENT = 16  # bytes, of where a row of weights begins
_NUM_MULTIPROCESSORS = 132
_MAX_SPLITS = 8
_SPLIT_UNIT = 256  # of the inner dimension: every block's size divides it
_MAX_ROWS = 256  # that are computed at a time, and in float32, which needs the same tile for all:
_MAX_WIDE_ROWS = 16
_MIN_BLOCK_ROWS = 16
_BLOCK_OUT = 64  # outputs whose number decides about splits
_LINE = 128  # weights of 8 bits in a line of the cache
_NUM_EARLY_LINES = 4


@triton.jit(do_not_specialize=["num_rows"])
def _product(
    weights,  # descriptor of [out_features, in_features] float8
    memory,  # where they begin
    rows,  # descriptor of [num_rows, in_features]
    scales,  # [out_features] float32
    output,  # [num_rows, out_features]
    partials,  # [num_splits, num_rows, out_features] float32, where there are several splits
    arrivals,  # [tiles] int32: how many parts of each have ended; zeros between products
    num_rows,
    out_features,
    in_features,
    split_size,  # of the inner dimension, a multiple of BLOCK_IN
    NUM_SPLITS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,  # at least num_rows
    NUM_EARLY_LINES: tl.constexpr,  # of each output's weights; 0 where kernels do not overlap
    LINE: tl.constexpr,
):
    """One tile of outputs, over one part of the inner dimension."""
    tile, part = tl.program_id(0), tl.program_id(1)
    outs = tile * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    start = part * split_size
    stop = tl.minimum(start + split_size, in_features)
    if NUM_EARLY_LINES > 0:
        announce_weights(memory, outs, start, out_features, in_features, NUM_EARLY_LINES, LINE)
        tl.extra.cuda.gdc_wait()
    sums = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    for inner in range(start, stop, BLOCK_IN):
        x = rows.load([0, inner])
        sums = tl.dot(widened(weights.load([tile * BLOCK_OUT, inner]), x), x.T, sums, input_precision="ieee")
    if NUM_EARLY_LINES > 0:
        tl.extra.cuda.gdc_launch_dependents()
    write_tile(
        sums, scales, output, partials, arrivals, outs, num_rows, out_features, NUM_SPLITS, BLOCK_OUT, BLOCK_ROWS
    )


def arrivals_for(out_features: int, device: torch.device) -> torch.Tensor:  # [tiles] int32
    """What `multiply` counts in: one for each matrix, since calls with one must follow each other."""
    return torch.zeros(triton.cdiv(out_features, _BLOCK_OUT), dtype=torch.int32, device=device)


def multiply(
    rows: torch.Tensor,  # [T, in_features]
    weights: torch.Tensor,  # [out_features, in_features] float8, each row of them ALIGNMENT bytes or a multiple
    scales: torch.Tensor,  # [out_features] float32
    arrivals: torch.Tensor,  # [tiles] int32, from `arrivals_for`
) -> torch.Tensor:  # [T, out_features]
    """`rows @ weights.t() * scales`, summed in float32."""
    assert rows.is_contiguous() and weights.is_contiguous()
    output = rows.new_empty(len(rows), len(weights))
    most = _MAX_WIDE_ROWS if rows.dtype == torch.float32 else _MAX_ROWS
    for some, results in zip(rows.split(most), output.split(most), strict=True):
        if len(some):
            _launch(some, weights, scales, results, arrivals)
    return output


def splits_of(out_features: int, in_features: int) -> tuple[int, int]:
    """How many parts the inner dimension is cut into, and their size.

    Two programs for each multiprocessor where there are not nearly as many tiles, since one cannot keep it busy.
    """
    num_units = triton.cdiv(in_features, _SPLIT_UNIT)
    wanted = max(1, 2 * _NUM_MULTIPROCESSORS // triton.cdiv(out_features, _BLOCK_OUT))
    units = triton.cdiv(num_units, min(wanted, _MAX_SPLITS, num_units))
    return triton.cdiv(num_units, units), units * _SPLIT_UNIT


def _launch(
    rows: torch.Tensor,  # [T, in_features], _MAX_ROWS at most
    weights: torch.Tensor,  # [out_features, in_features]
    scales: torch.Tensor,  # [out_features]
    output: torch.Tensor,  # [T, out_features], to be written
    arrivals: torch.Tensor,  # [tiles]
) -> None:
    (num_rows, in_features), out_features = rows.shape, weights.shape[0]
    num_splits, split_size = splits_of(out_features, in_features)
    block_rows = max(triton.next_power_of_2(num_rows), _MIN_BLOCK_ROWS)
    block_out, block_in, num_warps, num_stages = _tile(block_rows, rows.dtype)
    overlaps = is_overlapping(rows.device)
    _product[triton.cdiv(out_features, block_out), num_splits](
        TensorDescriptor.from_tensor(weights, [block_out, block_in]),
        weights,
        TensorDescriptor.from_tensor(rows, [block_rows, block_in]),
        scales,
        output,
        rows.new_empty((num_splits, num_rows, out_features) if num_splits > 1 else 1, dtype=torch.float32),
        arrivals,
        num_rows,
        out_features,
        in_features,
        split_size,
        num_splits,
        block_out,
        block_in,
        block_rows,
        _NUM_EARLY_LINES if overlaps else 0,
        _LINE,
        num_warps=num_warps,
        num_stages=num_stages,
        launch_pdl=overlaps,
    )


def _tile(block_rows: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """Outputs of a program, inner dimension of one step of it, warps, stages. None of it reaches the order of a sum.

    Measured on an H100 at the sizes of 31B for 8, 64 and 512 rows.
    """
    if dtype == torch.float32:
        return 64, 32, 4, 3
    if block_rows <= 16:
        return 64, 256, 4, 3
    if block_rows <= 64:
        return 64, 128, 4, 4
    return (128, 64, 8, 4) if block_rows <= 128 else (128, 128, 8, 3)
