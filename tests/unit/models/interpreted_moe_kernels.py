"""Run with TRITON_INTERPRET=1: the experts' kernels against plain torch, at sizes that fill no block."""

import torch

from tandem.models.gemma4.moe import mix_by_grouped_products
from tandem.models.gemma4.moe_kernels import mix_by_kernels

# num_rows, num_experts, top_k, hidden_size, size
SIZES = [(1, 8, 3, 32, 24), (20, 4, 2, 160, 40), (9, 5, 5, 72, 72), (300, 6, 1, 32, 8)]


def check() -> None:
    generator = torch.Generator().manual_seed(0)
    for num_rows, num_experts, top_k, hidden_size, size in SIZES:
        rows = torch.randn(num_rows, hidden_size, generator=generator)
        gate_up = torch.randn(num_experts, 2 * size, hidden_size, generator=generator) / hidden_size**0.5
        down = torch.randn(num_experts, hidden_size, size, generator=generator) / size**0.5
        scores, expert_ids = torch.randn(num_rows, num_experts, generator=generator).topk(top_k, -1)
        sorted_ids, order = expert_ids.flatten().sort(stable=True)
        ends = torch.searchsorted(sorted_ids, torch.arange(num_experts), right=True, out_int32=True)
        arguments = rows, gate_up.transpose(1, 2), down.transpose(1, 2), scores.softmax(-1), order, sorted_ids, ends
        torch.testing.assert_close(mix_by_kernels(*arguments), mix_by_grouped_products(*arguments), atol=1e-5, rtol=0.0)


if __name__ == "__main__":
    check()
