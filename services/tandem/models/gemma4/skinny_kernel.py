"""The product of few rows and a matrix of weights on a Hopper GPU.

Such a product takes as long as reading the weights. A program has a tile of outputs and keeps several blocks of weights
on their way; the tile is the large operand of the tensor cores, the rows, padded to 16 or more, are the small one.
Where the tiles are too few to keep the memory busy, each is split along the inner dimension: the parts leave their sums
in float32, and whichever ends last adds them up, in the order of the dimension. Kernels overlap (programmatic dependent
launch): the first weights do not wait for the rows.

How the inner dimension is split depends on the matrix alone, and blocks, which the number of rows decides about, follow
one another in its order: a row rounds the same however many rows there are.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tandem.attention.overlap import is_overlapping
from tandem.models.gemma4.tile_kernel import announce_weights, write_tile

_NUM_MULTIPROCESSORS = 132
_SHARED_MEMORY = 220 << 10  # bytes that a program can have for its blocks
_ALIGNMENT = 16  # bytes, of where a row of weights begins
_MIN_BLOCK_ROWS = 16
_MAX_SPLITS = 8
_LINE = 64  # weights of 16 bits in a line of the cache
_NUM_EARLY_LINES = 4
_NUM_LAST_BLOCKS = 4
_MANY_TILES = 128  # of 64 outputs
_FEW_BLOCKS = 8  # of 128 inputs: a program has begun to read them all when it could begin to multiply


@triton.jit(do_not_specialize=["num_rows"])
def _product(
    weights,  # descriptor of [out_features, in_features]
    memory,  # where they begin
    rows,  # descriptor of [num_rows, in_features]
    output,  # [num_rows, out_features]
    partials,  # [num_splits, num_rows, out_features] float32
    arrivals,  # [tiles] int32: how many parts of each have ended; zeros between products
    num_rows,
    out_features,
    in_features,
    NUM_SPLITS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,  # at least num_rows
    NUM_EARLY_LINES: tl.constexpr,  # of each output's weights; 0 where kernels do not overlap
    LINE: tl.constexpr,
    NUM_LAST_BLOCKS: tl.constexpr,  # that are still to come when the next kernel may set off
):
    """One tile of outputs, over one part of the inner dimension."""
    tile, part = tl.program_id(0), tl.program_id(1)
    outs = tile * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    num_blocks = tl.cdiv(in_features, BLOCK_IN)
    start = part * num_blocks // NUM_SPLITS * BLOCK_IN
    stop = (part + 1) * num_blocks // NUM_SPLITS * BLOCK_IN
    if NUM_EARLY_LINES > 0:
        announce_weights(memory, outs, start, out_features, in_features, NUM_EARLY_LINES, LINE)
        tl.extra.cuda.gdc_wait()
    late = tl.maximum(stop - NUM_LAST_BLOCKS * BLOCK_IN, start)
    sums = tl.zeros((BLOCK_OUT, BLOCK_ROWS), tl.float32)
    for inner in range(start, stop, BLOCK_IN):
        block = weights.load([tile * BLOCK_OUT, inner])
        sums = tl.dot(block, rows.load([0, inner]).T, sums, input_precision="ieee")
        if NUM_EARLY_LINES > 0:
            if inner == late:
                tl.extra.cuda.gdc_launch_dependents()
    write_tile(sums, None, output, partials, arrivals, outs, num_rows, out_features, NUM_SPLITS, BLOCK_OUT, BLOCK_ROWS)


@dataclass(frozen=True)
class Tiling:
    """How a product is cut. A row rounds the same whatever the blocks are, but not whatever the splits are."""

    block_out: int  # outputs of a program
    block_in: int  # of the inner dimension, in one step of a program
    num_stages: int  # blocks of weights that are on their way to a program
    num_splits: int = 1  # programs that share a tile of outputs; of a matrix, whatever the number of rows


def tiling_of(out_features: int, in_features: int, block_rows: int) -> Tiling:
    """Chosen by measurements with the shapes of Gemma 4 31B and its drafter on an H100.

    Few outputs: narrow tiles, so that most multiprocessors have one. Splits pay only where half of the multiprocessors
    would have none. Many outputs: as much as fits is on its way, in blocks that are the longer the fewer rows share the
    memory of a multiprocessor with them.
    """
    num_tiles, num_blocks = triton.cdiv(out_features, 64), triton.cdiv(in_features, 128)
    if num_tiles < _MANY_TILES:
        num_splits = min(triton.cdiv(_NUM_MULTIPROCESSORS // 2, num_tiles), triton.cdiv(num_blocks, 4), _MAX_SPLITS)
        return Tiling(block_out=64, block_in=128, num_stages=6, num_splits=num_splits)
    if block_rows > 64:
        return Tiling(block_out=128, block_in=64, num_stages=5)
    if block_rows > 32 or num_blocks <= _FEW_BLOCKS:
        return Tiling(block_out=128, block_in=128, num_stages=5)
    return Tiling(block_out=64, block_in=256, num_stages=6)


class SkinnyProduct:
    """The product with one matrix. Runs on one stream at a time, since its parts count one another."""

    max_rows = 128  # with more, arithmetic is the limit, and torch's products do it faster

    def __init__(self, weights: torch.Tensor, tiling: Tiling | None = None) -> None:  # [out_features, in_features]
        """Keeps a view of the weights; takes the tilings of its shape unless one is given."""
        assert weights.is_contiguous()
        out_features, in_features = weights.shape
        self._weights = weights
        self._tilings: dict[int, Tiling] = {}  # by rows of a block
        self._blocks: dict[int, TensorDescriptor] = {}
        block_rows = _MIN_BLOCK_ROWS
        while block_rows <= self.max_rows:
            cut = self._tilings[block_rows] = tiling or tiling_of(out_features, in_features, block_rows)
            self._blocks[block_rows] = TensorDescriptor.from_tensor(weights, [cut.block_out, cut.block_in])
            block_rows *= 2
        least = min(cut.block_out for cut in self._tilings.values())
        self._arrivals = torch.zeros(triton.cdiv(out_features, least), dtype=torch.int32, device=weights.device)

    @staticmethod
    def supports(weights: torch.Tensor) -> bool:  # [out_features, in_features]
        """Whether the kernel is for such a matrix, on such a device."""
        return (
            weights.device.type == "cuda"
            and weights.dtype == torch.bfloat16
            and torch.cuda.get_device_capability(weights.device)[0] == 9
            and weights.is_contiguous()
            and weights.shape[1] * weights.itemsize % _ALIGNMENT == 0
        )

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:  # [T, in_features] -> [T, out_features]
        """rows W^T, for one row to `max_rows`."""
        (out_features, in_features), num_rows = self._weights.shape, len(rows)
        assert 0 < num_rows <= self.max_rows
        block_rows = max(triton.next_power_of_2(num_rows), _MIN_BLOCK_ROWS)
        tiling = self._tilings[block_rows]
        output = rows.new_empty(num_rows, out_features)
        num_partials = tiling.num_splits if tiling.num_splits > 1 else 0
        partials = rows.new_empty(num_partials, num_rows, out_features, dtype=torch.float32)
        stage_size = (tiling.block_out + block_rows) * tiling.block_in * rows.itemsize
        overlaps = is_overlapping(rows.device)
        _product[triton.cdiv(out_features, tiling.block_out), tiling.num_splits](
            self._blocks[block_rows],
            self._weights,
            TensorDescriptor.from_tensor(rows.contiguous(), [block_rows, tiling.block_in]),
            output,
            partials,
            self._arrivals,
            num_rows,
            out_features,
            in_features,
            tiling.num_splits,
            tiling.block_out,
            tiling.block_in,
            block_rows,
            _NUM_EARLY_LINES if overlaps else 0,
            _LINE,
            _NUM_LAST_BLOCKS,
            num_warps=4,
            num_stages=min(tiling.num_stages, _SHARED_MEMORY // stage_size),
            launch_pdl=overlaps,
        )
        return output
