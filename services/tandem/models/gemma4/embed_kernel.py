"""What a draft starts from on a GPU, in one pass: the scaled embeddings of tokens, beside hidden rows.

Every value that is a tensor of its own in plain operations is rounded here as it is there.
"""

import torch
import triton
import triton.language as tl

from tandem.attention.overlap import is_overlapping

_BLOCK = 1024


@triton.jit
def _embed_beside(
    token_ids,  # [B] int64
    table,  # [V, size]
    scale,  # [] as the table
    hidden,  # [B, size]
    output,  # [B, 2 * size]
    size,
    BLOCK: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    row, columns = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_column = columns < size
    kind = output.dtype.element_ty
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    token = tl.load(token_ids + row)
    embedded = tl.load(table + token * size + columns, mask=is_column, other=0.0).to(tl.float32)
    embedded = (embedded * tl.load(scale).to(tl.float32)).to(kind)
    beside = tl.load(hidden + row * size + columns, mask=is_column, other=0.0)
    tl.store(output + row * 2 * size + columns, embedded, mask=is_column)
    tl.store(output + row * 2 * size + size + columns, beside, mask=is_column)


def embed_beside(
    token_ids: torch.Tensor,  # [B] int64
    table: torch.Tensor,  # [V, size]
    scale: torch.Tensor,  # []
    hidden: torch.Tensor,  # [B, size]
) -> torch.Tensor:  # [B, 2 * size]
    """`cat(table[token_ids] * scale, hidden)`. Does not wait for the device."""
    num_rows, size = hidden.shape
    output = hidden.new_empty(num_rows, 2 * size)
    overlaps = is_overlapping(hidden.device)
    _embed_beside[(num_rows, triton.cdiv(size, _BLOCK))](
        token_ids, table, scale, hidden.contiguous(), output, size,
        BLOCK=_BLOCK, OVERLAPS=overlaps, launch_pdl=overlaps,
    )  # fmt: skip
    return output
