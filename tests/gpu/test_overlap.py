"""Kernels that overlap write what they write one after the other, however often they run."""

import pytest
import torch

from tandem.attention import paged_kernel
from tandem.models.gemma4 import activation_kernel, head_kernel, norm_kernel
from tests.gpu.test_batch_invariance import STARTS, problem

__all__ = ["problem"]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

NUM_REPLAYS = 300


@pytest.mark.parametrize("num_sequences", [1, 8, 16])
@torch.inference_mode()
def test_many_rounds_in_a_graph(problem, num_sequences, monkeypatch):
    sequences = torch.arange(num_sequences, device="cuda")
    starts, token_ids = torch.tensor(STARTS, device="cuda")[:num_sequences], problem.token_ids[:num_sequences]
    with monkeypatch.context() as patch:
        for module in (paged_kernel, norm_kernel, head_kernel, activation_kernel):
            patch.setattr(module, "is_overlapping", lambda device: False)
        expected = problem.on_device(problem.fresh_kv(), sequences, starts, token_ids)
    kv = problem.fresh_kv()
    assert torch.equal(problem.on_device(kv, sequences, starts, token_ids), expected)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = problem.on_device(kv, sequences, starts, token_ids)
    num_wrong = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(NUM_REPLAYS):
        graph.replay()
        num_wrong += (found != expected).sum()
        found.zero_()
    assert num_wrong.item() == 0
