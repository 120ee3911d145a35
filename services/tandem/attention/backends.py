"""Which backend computes attention on a device."""

import torch

from tandem.attention.base import AttentionBackend
from tandem.attention.reference import ReferenceBackend


def backend_for(
    num_heads: int, device: torch.device, dtype: torch.dtype, is_batch_invariant: bool = True
) -> AttentionBackend:
    """The fastest one there is.

    Args:
        num_heads: query heads of every layer.
        device: of queries, keys and values.
        dtype: of queries, keys and values.
        is_batch_invariant: whether rows must round the same in any step; on CUDA, in any of up to 128 rows.
    """
    if device.type == "cuda":
        from tandem.attention.paged import PagedBackend  # needs Triton, which a CPU does without

        return PagedBackend(num_heads, device, dtype, is_batch_invariant)
    return ReferenceBackend(num_heads, device, dtype, is_batch_invariant)
