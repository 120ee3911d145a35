"""The fused path of the head over centroids, at the size of E4B's drafter."""

import pytest
import torch

from tandem.models.gemma4.candidate_logits import candidate_logits, gathered_candidate_logits

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

VOCAB_SIZE, NUM_CENTROIDS, TOP_K, HIDDEN_SIZE = 262_144, 2048, 32, 256
CLUSTER_SIZE = VOCAB_SIZE // NUM_CENTROIDS


def problem(num_rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator("cuda").manual_seed(num_rows)
    table = torch.randn(VOCAB_SIZE, HIDDEN_SIZE, generator=generator, device="cuda").to(dtype)
    rows = torch.randn(num_rows, HIDDEN_SIZE, generator=generator, device="cuda").to(dtype)
    scores = torch.rand(num_rows, NUM_CENTROIDS, generator=generator, device="cuda")
    return rows, table, scores.topk(TOP_K).indices


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 7, 32])
def test_it_agrees_with_float64(num_rows: int, dtype: torch.dtype) -> None:
    """Products of bfloat16 numbers are exact in float32, so that both dtypes are left with the sums' rounding."""
    rows, table, clusters = problem(num_rows, dtype)
    logits = candidate_logits(rows, table, clusters, CLUSTER_SIZE)
    tokens = clusters.unsqueeze(-1) * CLUSTER_SIZE + torch.arange(CLUSTER_SIZE, device="cuda")
    expected = torch.einsum("bch,bh->bc", table.double()[tokens.flatten(1)], rows.double())
    assert logits.dtype == torch.float32 and logits.shape == (num_rows, TOP_K * CLUSTER_SIZE)
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=0.0)


def test_no_cluster_is_copied() -> None:
    """Beyond its result, the fused path needs no memory; plain torch needs that of a row's candidates."""
    arguments = (*problem(8, torch.bfloat16), CLUSTER_SIZE)
    candidate_bytes = TOP_K * CLUSTER_SIZE * HIDDEN_SIZE * 2
    needed = []
    for compute in (candidate_logits, gathered_candidate_logits):
        compute(*arguments)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        compute(*arguments)
        needed.append(torch.cuda.max_memory_allocated() - before)
    assert needed[0] == 8 * TOP_K * CLUSTER_SIZE * 4
    assert needed[1] >= candidate_bytes


def test_it_can_be_captured() -> None:
    """Into a CUDA graph, which then follows its inputs."""
    rows, table, clusters = problem(4, torch.bfloat16)
    candidate_logits(rows, table, clusters, CLUSTER_SIZE)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = candidate_logits(rows, table, clusters, CLUSTER_SIZE)
    other_rows, _, other_clusters = problem(4, torch.float32)
    rows.copy_(other_rows.neg())
    clusters.copy_(other_clusters.flip(1))
    graph.replay()
    assert logits.equal(candidate_logits(rows, table, clusters, CLUSTER_SIZE))
