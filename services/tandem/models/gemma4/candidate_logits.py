"""The logits of a few clusters of tokens."""

import torch


def candidate_logits(
    rows: torch.Tensor,  # [B, hidden_size]
    table: torch.Tensor,  # [num_clusters * cluster_size, hidden_size], cluster after cluster
    clusters: torch.Tensor,  # [B, num_chosen] int64
    cluster_size: int,
) -> torch.Tensor:  # [B, num_chosen * cluster_size] float32
    """`table[token] · row` for all tokens of each row's clusters, in their order."""
    if rows.is_cuda:
        from tandem.models.gemma4.candidate_kernel import fused_candidate_logits

        return fused_candidate_logits(rows, table, clusters, cluster_size)
    return gathered_candidate_logits(rows, table, clusters, cluster_size)


def gathered_candidate_logits(
    rows: torch.Tensor,  # [B, hidden_size]
    table: torch.Tensor,  # [num_clusters * cluster_size, hidden_size]
    clusters: torch.Tensor,  # [B, num_chosen] int64
    cluster_size: int,
) -> torch.Tensor:  # [B, num_chosen * cluster_size] float32
    """In plain torch: copies a row's clusters and multiplies, row after row: so little stays in the cache."""
    by_cluster = table.view(-1, cluster_size * rows.shape[1])
    logits = [
        torch.mv(by_cluster.index_select(0, chosen).view(-1, rows.shape[1]), row)
        for row, chosen in zip(rows.unbind(), clusters.unbind(), strict=True)
    ]
    return torch.stack(logits).float()
