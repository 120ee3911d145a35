"""`SamplingRows` from the fields of slots on a GPU, in one kernel; see `SamplingRows.from_slots`."""

import torch
import triton
import triton.language as tl

_BLOCK = 128  # rows of a program


@triton.jit
def _read_rows(
    temperatures,  # [S] float64, 0 = greedy
    top_ks,  # [S] int64, 0 = all
    top_ps,  # [S] float64
    min_ps,  # [S] float64
    seeds,  # [S] int64
    slots,  # [B] int64
    floats,  # [3, R] float64: temperature, top-p, min-p
    integers,  # [2, R] int64: top-k, seed
    num_rows,
    num_rows_of_slot,
    NO_TOP_K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_row = row < num_rows
    slot = tl.load(slots + row // num_rows_of_slot, mask=is_row, other=0)
    temperature = tl.load(temperatures + slot, mask=is_row, other=0.0)
    top_k = tl.load(top_ks + slot, mask=is_row, other=0)
    top_p = tl.load(top_ps + slot, mask=is_row, other=0.0)
    is_greedy = temperature == 0.0
    top_k = tl.where(is_greedy, 1, tl.where(top_k > 0, top_k, NO_TOP_K))
    tl.store(floats + row, tl.where(is_greedy, 1.0, temperature), mask=is_row)
    tl.store(floats + num_rows + row, tl.where(top_p < 1.0, top_p, float("inf")), mask=is_row)
    tl.store(floats + 2 * num_rows + row, tl.load(min_ps + slot, mask=is_row, other=0.0), mask=is_row)
    tl.store(integers + row, top_k, mask=is_row)
    tl.store(integers + num_rows + row, tl.load(seeds + slot, mask=is_row, other=0), mask=is_row)


def read_rows(
    temperatures: torch.Tensor,  # [S] float64
    top_ks: torch.Tensor,  # [S] int64
    top_ps: torch.Tensor,  # [S] float64
    min_ps: torch.Tensor,  # [S] float64
    seeds: torch.Tensor,  # [S] int64
    slots: torch.Tensor,  # [B] int64
    num_rows: int,  # of each slot
    no_top_k: int,
) -> tuple[torch.Tensor, torch.Tensor]:  # [3, R] float64, [2, R] int64
    """Temperature, top-p and min-p of the rows, then top-k and seed. Does not wait for the device."""
    total = len(slots) * num_rows
    floats, integers = temperatures.new_empty(3, total), seeds.new_empty(2, total)
    _read_rows[(triton.cdiv(total, _BLOCK),)](
        temperatures, top_ks, top_ps, min_ps, seeds, slots.contiguous(), floats, integers, total, num_rows,
        NO_TOP_K=no_top_k, BLOCK=_BLOCK, num_warps=1,
    )  # fmt: skip
    return floats, integers
