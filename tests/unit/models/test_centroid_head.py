"""The head over centroids: whom it scores, with what, and that nothing of the vocabulary's size is made on the way."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tandem.core.sampling_params import SamplingParams
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.models.gemma4.candidate_kernel import fused_candidate_logits
from tandem.models.gemma4.candidate_logits import candidate_logits, gathered_candidate_logits
from tandem.models.gemma4.centroid_head import CentroidHead
from tandem.models.gemma4.drafter_config import CentroidConfig
from tests.checkpoints import make_tiny_pair
from tests.unit.engine.drafting import Decoding

VOCAB_SIZE, HIDDEN_SIZE = 96, 16
CONFIG = CentroidConfig(num_centroids=12, top_k=4)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "model.embed_tokens.weight": torch.randn(VOCAB_SIZE, HIDDEN_SIZE, generator=generator),
        "masked_embedding.centroids.weight": torch.randn(12, HIDDEN_SIZE, generator=generator),
        "masked_embedding.token_ordering": torch.randperm(VOCAB_SIZE, generator=generator),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_candidates_are_the_tokens_of_the_best_clusters(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    head = CentroidHead(CONFIG, HIDDEN_SIZE, VOCAB_SIZE, dtype, torch.device("cpu"))
    for name, destination in head.destinations("model."):
        destination.write(tensors[name])
    head.arrange(Path("folder"))
    rows = torch.randn(5, HIDDEN_SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)
    scores = head(rows)
    assert scores.token_ids is not None
    assert scores.logits.shape == scores.token_ids.shape == (5, 4 * 8)
    table, centroids = (tensors[name].to(dtype).double() for name in list(tensors)[:2])
    clusters = tensors["masked_embedding.token_ordering"].view(12, 8)
    for row, logits, token_ids in zip(rows.double(), scores.logits, scores.token_ids, strict=True):
        best = sorted(range(12), key=lambda cluster: -float(centroids[cluster] @ row))[:4]
        assert set(token_ids.tolist()) == set(clusters[best].flatten().tolist())
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        torch.testing.assert_close(logits.double(), table[token_ids] @ row, atol=tolerance, rtol=0.0)


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that any operation returned."""

    num_elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            is_new = isinstance(tensor, torch.Tensor) and not func.is_view
            self.num_elements = max(self.num_elements, tensor.numel() if is_new else 0)
        return result


@pytest.mark.parametrize("params", [SamplingParams(temperature=0.0), SamplingParams(top_k=9), SamplingParams()])
def test_a_round_makes_nothing_of_the_vocabularys_size(params: SamplingParams, tmp_path: Path) -> None:
    made = {}
    for name, centroids in (("candidates", (512, 2)), ("whole", None)):
        paths = make_tiny_pair(tmp_path / name, vocab_size=1 << 15, centroids=centroids)
        decoding = Decoding(paths, {"a": 9})
        inputs = decoding.inputs(num_slots=1)
        decoding.write(inputs, 0, "a", params)
        drafter = MtpDrafter(decoding.network, inputs)
        with Largest() as largest:
            assert len(drafter.propose([0], 3)[0]) == 3
        made[name] = largest.num_elements
    assert made["whole"] >= 1 << 15, "where it is made, it is seen"
    assert made["candidates"] < 1 << 13


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("num_rows", "num_clusters", "cluster_size", "num_chosen", "hidden_size"),
    [(1, 4, 8, 2, 16), (3, 5, 33, 2, 24), (2, 6, 128, 3, 64)],
)
def test_the_kernel_agrees_with_plain_torch(
    num_rows: int, num_clusters: int, cluster_size: int, num_chosen: int, hidden_size: int, dtype: torch.dtype
) -> None:
    """At sizes that fill no block."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(num_rows, hidden_size, generator=generator).to(dtype)
    table = torch.randn(num_clusters * cluster_size, hidden_size, generator=generator).to(dtype)
    clusters = torch.randint(0, num_clusters, (num_rows, num_chosen), generator=generator)
    expected = gathered_candidate_logits(rows.double(), table.double(), clusters, cluster_size)
    logits = fused_candidate_logits(rows, table, clusters, cluster_size)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0.0)


def test_a_cpu_needs_no_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch; from tandem.models.gemma4.weights import load_drafter\n"
        "from tandem.models.gemma4.candidate_logits import candidate_logits\n"
        "candidate_logits(torch.ones(1, 2), torch.ones(4, 2), torch.zeros(1, 1).long(), 2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_row_has_clusters_of_its_own() -> None:
    table = torch.arange(12.0).view(6, 2)
    clusters = torch.tensor([[2, 0], [1, 1]])
    logits = candidate_logits(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), table, clusters, 2)
    assert logits.tolist() == [[8.0, 10.0, 0.0, 2.0], [5.0, 7.0, 5.0, 7.0]]
