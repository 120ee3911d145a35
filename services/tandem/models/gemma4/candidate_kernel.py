"""The logits of a few clusters of tokens on a GPU, without a copy of the clusters."""

import torch
import triton
import triton.language as tl

_TOKENS = 16  # of one program; a cluster of 128 is shared by eight, so that a single row fills a GPU


@triton.jit
def _candidate_logits(
    rows,  # [B, hidden_size]
    table,  # [num_clusters * cluster_size, hidden_size]
    clusters,  # [B, num_chosen] int64
    logits,  # [B, num_chosen * cluster_size] float32
    cluster_size,
    hidden_size,
    NUM_TOKENS: tl.constexpr,
    WIDTH: tl.constexpr,  # a power of two, at least hidden_size
):
    """One program: some tokens of one of a row's clusters."""
    row, chosen = tl.program_id(0), tl.program_id(1)
    token = tl.program_id(2) * NUM_TOKENS + tl.arange(0, NUM_TOKENS)
    place = tl.arange(0, WIDTH)
    cluster = tl.load(clusters + row * tl.num_programs(1) + chosen)
    is_token, is_place = token < cluster_size, place < hidden_size
    weights = tl.load(
        table + (cluster * cluster_size + token)[:, None] * hidden_size + place[None, :],
        mask=is_token[:, None] & is_place[None, :],
        other=0.0,
    )
    hidden = tl.load(rows + row * hidden_size + place, mask=is_place, other=0.0)
    sums = tl.sum(weights.to(tl.float32) * hidden.to(tl.float32)[None, :], axis=1)
    tl.store(logits + (row * tl.num_programs(1) + chosen) * cluster_size + token, sums, mask=is_token)


def fused_candidate_logits(
    rows: torch.Tensor,  # [B, hidden_size]
    table: torch.Tensor,  # [num_clusters * cluster_size, hidden_size]
    clusters: torch.Tensor,  # [B, num_chosen] int64
    cluster_size: int,
) -> torch.Tensor:  # [B, num_chosen * cluster_size] float32
    """As `candidate_logits`: every weight is read once, products are summed in float32."""
    num_rows, hidden_size = rows.shape
    num_chosen = clusters.shape[1]
    assert rows.is_contiguous() and table.is_contiguous() and clusters.is_contiguous()
    logits = rows.new_empty((num_rows, num_chosen * cluster_size), dtype=torch.float32)
    grid = (num_rows, num_chosen, triton.cdiv(cluster_size, _TOKENS))
    _candidate_logits[grid](
        rows, table, clusters, logits, cluster_size, hidden_size, _TOKENS, triton.next_power_of_2(hidden_size)
    )
    return logits
