"""The plan of a round for one group of layers, in one kernel: a program a sequence.

row r of a sequence that starts at s stands at s + r, and its key and value go to slot
table[(s + r) // block size] * block size + (s + r) % block size, or into the spare block where there is no block
"""

import torch
import triton
import triton.language as tl

from tandem.attention.device_batch import DeviceBatch
from tandem.attention.splits import SplitSizes
from tandem.kv_cache.group import KvGroup

PIECE_SIZE = tl.constexpr(6)  # numbers


@triton.jit
def _plan(
    sequences,  # [B] int64
    starts,  # [B] int64
    num_keys,  # [B] int64
    table,  # [S, table_width] int32
    positions,  # [B * num_rows] int64
    slots,  # [B * num_rows] int64
    pieces,  # [B * num_pieces, PIECE_SIZE] int32: see `attend_paged`
    table_width,
    spare_block,
    num_rows,
    num_pieces,  # of a sequence
    num_lead_pieces,  # of these, before a change
    rows_per_piece,
    FIRSTS: tl.constexpr,  # positions from which on
    SIZES: tl.constexpr,  # splits have these sizes
    KV_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,  # at least num_rows, and num_pieces
):
    index = tl.program_id(0)
    sequence, start = tl.load(sequences + index), tl.load(starts + index)
    row = tl.arange(0, BLOCK)
    is_row = row < num_rows
    position = start + row
    place = position // KV_BLOCK
    block = tl.load(table + sequence * table_width + place, mask=is_row & (place < table_width), other=-1)
    block = tl.where(block >= 0, block, spare_block).to(tl.int64)
    at = index.to(tl.int64) * num_rows + row
    tl.store(positions + at, position, mask=is_row)
    tl.store(slots + at, block * KV_BLOCK + position % KV_BLOCK, mask=is_row)

    change = start + num_rows
    for number in tl.static_range(1, len(FIRSTS)):
        is_met = (start < FIRSTS[number]) & (FIRSTS[number] < change)
        change = tl.where(is_met, FIRSTS[number], change)
    is_lead = row < num_lead_pieces
    place = tl.where(is_lead, start + row * rows_per_piece, change + (row - num_lead_pieces) * rows_per_piece)
    until = tl.where(is_lead, change, start + num_rows)
    split_size = tl.full([BLOCK], SIZES[0], tl.int32)
    for number in tl.static_range(1, len(FIRSTS)):
        split_size = tl.where(place >= FIRSTS[number], SIZES[number], split_size)
    is_piece = row < num_pieces
    piece = pieces + (index * num_pieces + row) * PIECE_SIZE
    length = tl.minimum(tl.maximum(until - place, 0), rows_per_piece)
    tl.store(piece, (index * num_rows + place - start).to(tl.int32), mask=is_piece)
    tl.store(piece + 1, length.to(tl.int32), mask=is_piece)
    tl.store(piece + 2, place.to(tl.int32), mask=is_piece)
    tl.store(piece + 3, (tl.load(num_keys + index) + row * 0).to(tl.int32), mask=is_piece)
    tl.store(piece + 4, (sequence + row * 0).to(tl.int32), mask=is_piece)
    tl.store(piece + 5, split_size, mask=is_piece)


def plan_on_device(
    batch: DeviceBatch, group: KvGroup, block_size: int, rows_per_piece: int, sizes: SplitSizes
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # [T] int64, [T] int64, [P, 6] int32
    """Positions of all rows, the slots that they write, and pieces of them. Does not wait for the device."""
    count, table = len(batch.starts), batch.block_tables[group.name]
    firsts, split_sizes = zip(*sizes.sizes, strict=True)
    assert all(batch.num_rows < first for first in firsts[1:]), "a sequence meets one change at most"
    num_lead_pieces = triton.cdiv(batch.num_rows, rows_per_piece)
    num_pieces = num_lead_pieces * (2 if len(firsts) > 1 and batch.num_rows > 1 else 1)
    positions, slots = batch.starts.new_empty(2, count * batch.num_rows).unbind()
    pieces = torch.empty((count * num_pieces, PIECE_SIZE.value), dtype=torch.int32, device=table.device)
    assert table.is_contiguous() and batch.starts.is_contiguous()
    _plan[(count,)](
        batch.sequences.contiguous(),
        batch.starts,
        batch.num_keys.contiguous(),
        table,
        positions,
        slots,
        pieces,
        table.shape[1],
        batch.spare_blocks[group.name],
        batch.num_rows,
        num_pieces,
        num_lead_pieces,
        rows_per_piece,
        FIRSTS=firsts,
        SIZES=split_sizes,
        KV_BLOCK=block_size,
        BLOCK=triton.next_power_of_2(max(batch.num_rows, num_pieces)),
        num_warps=1,
    )
    return positions, slots, pieces
