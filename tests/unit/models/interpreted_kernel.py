"""Run with TRITON_INTERPRET=1: the fused candidate logits against plain torch, at sizes that fill no block."""

import torch

from tandem.models.gemma4.candidate_kernel import fused_candidate_logits
from tandem.models.gemma4.candidate_logits import gathered_candidate_logits

# num_rows, num_clusters, cluster_size, num_chosen, hidden_size
SIZES = [(1, 4, 8, 2, 16), (3, 5, 33, 2, 24), (2, 6, 128, 3, 64)]


def check() -> None:
    generator = torch.Generator().manual_seed(0)
    for num_rows, num_clusters, cluster_size, num_chosen, hidden_size in SIZES:
        rows = torch.randn(num_rows, hidden_size, generator=generator)
        table = torch.randn(num_clusters * cluster_size, hidden_size, generator=generator)
        clusters = torch.randint(0, num_clusters, (num_rows, num_chosen), generator=generator)
        for dtype in (torch.float32, torch.bfloat16):
            arguments = rows.to(dtype), table.to(dtype), clusters, cluster_size
            expected = gathered_candidate_logits(arguments[0].double(), arguments[1].double(), clusters, cluster_size)
            torch.testing.assert_close(fused_candidate_logits(*arguments), expected, atol=1e-4, rtol=0.0)


if __name__ == "__main__":
    check()
