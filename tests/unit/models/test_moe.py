"""The mixture of experts: against float64, bit for bit alone and among others, and what it costs."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tandem.models.gemma4.config import read_target_config
from tandem.models.gemma4.expert_matrices import ExpertMatrices
from tandem.models.gemma4.fp8_linear import FP8
from tandem.models.gemma4.moe import MixtureOfExperts, mix_by_grouped_products
from tandem.models.gemma4.moe_kernels import mix_by_kernels
from tandem.models.gemma4.parameters import MIN_STABLE_ROWS
from tests.checkpoints import VARIANTS, make_tiny_pair, target_tensors
from tests.unit.attention.rounding import assert_alike

PREFIX = "model.layers.0."
HIDDEN_SIZE = 32

Tensors = dict[str, torch.Tensor]


class Operations(TorchDispatchMode):
    """Counts what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def make(tmp_path: Path, **overrides: Any) -> tuple[MixtureOfExperts, Tensors]:
    """One layer's experts, and their tensors by name."""
    fields = {**VARIANTS["26b-a4b"], "num_hidden_layers": 1, "layer_types": ["full_attention"], **overrides}
    path, _ = make_tiny_pair(tmp_path, **fields)
    text = json.loads((path / "config.json").read_text())
    tensors = dict(target_tensors(text, torch.Generator().manual_seed(1)))
    experts = MixtureOfExperts(read_target_config(path), PREFIX, torch.float32, torch.device("cpu"))
    for name, destination in experts.destinations():
        destination.write(tensors[name])
    return experts, {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


def rows(count: int, seed: int = 0) -> torch.Tensor:  # -> [count, HIDDEN_SIZE]
    return torch.randn(count, HIDDEN_SIZE, generator=torch.Generator().manual_seed(seed))


def reference(dense: torch.Tensor, hidden: torch.Tensor, tensors: Tensors, top_k: int) -> torch.Tensor:
    """Row by row and expert by expert in float64, as the equations in `moe` say."""
    weights = {name: tensor.double() for name, tensor in tensors.items()}

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean() + 1e-6).sqrt() * weights[name]

    output = []
    for mlp, x in zip(dense.double(), hidden.double(), strict=True):
        scores = weights["router.proj.weight"] @ normed(x, "router.scale") * HIDDEN_SIZE**-0.5
        probabilities = scores.softmax(-1)
        chosen = probabilities.argsort(descending=True)[:top_k]
        y = normed(x, "pre_feedforward_layernorm_2.weight")
        mixed = torch.zeros_like(x)
        for expert in chosen:
            gate, up = (weights["experts.gate_up_proj"][expert] @ y).chunk(2)
            share = probabilities[expert] / probabilities[chosen].sum() * weights["router.per_expert_scale"][expert]
            mixed += share * (weights["experts.down_proj"][expert] @ (F.gelu(gate, approximate="tanh") * up))
        mixed = normed(mixed, "post_feedforward_layernorm_2.weight")
        output.append(normed(mlp, "post_feedforward_layernorm_1.weight") + mixed)
    return torch.stack(output)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
@pytest.mark.parametrize(("num_experts", "top_k"), [(8, 3), (4, 4), (5, 1), (64, 8)])
def test_what_the_equations_say(count: int, num_experts: int, top_k: int, tmp_path: Path) -> None:
    experts, tensors = make(tmp_path, num_experts=num_experts, top_k_experts=top_k)
    dense, hidden = rows(count, seed=1), rows(count, seed=2)
    expected = reference(dense, hidden, tensors, top_k)
    torch.testing.assert_close(experts.add_to(dense.clone(), hidden).double(), expected, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("num_experts", [8, 64])
def test_a_row_rounds_alike_whatever_else_is_in_the_step(num_experts: int, tmp_path: Path) -> None:
    """Down to steps in which an expert has one row, and up to many rows for every expert."""
    experts, _ = make(tmp_path, num_experts=num_experts, top_k_experts=3)
    dense, hidden = rows(120, seed=1), rows(120, seed=2)
    together = experts.add_to(dense.clone(), hidden)
    for size in (MIN_STABLE_ROWS, MIN_STABLE_ROWS + 1, 7, 16, 33):
        for start in range(0, 120 - size, size):
            part = slice(start, start + size)
            assert_alike(experts.add_to(dense[part].clone(), hidden[part]), together[part], MIN_STABLE_ROWS)


def test_one_row_rounds_as_its_copies_do(tmp_path: Path) -> None:
    """A step of one row is run as several equal ones."""
    experts, _ = make(tmp_path)
    dense, hidden = rows(20, seed=1), rows(20, seed=2)
    together = experts.add_to(dense.clone(), hidden)
    for row in range(20):
        copies = experts.add_to(dense[row].repeat(MIN_STABLE_ROWS, 1), hidden[row].repeat(MIN_STABLE_ROWS, 1))
        for copy in copies:
            assert_alike(copy, together[row], MIN_STABLE_ROWS)


def test_experts_that_nobody_chose_are_not_read(tmp_path: Path) -> None:
    experts, tensors = make(tmp_path, num_experts=64)
    dense, hidden = rows(6, seed=1), rows(6, seed=2)
    before = experts.add_to(dense.clone(), hidden)
    chosen, _ = experts._route(hidden)
    unread = [expert for expert in range(64) if expert not in chosen]
    assert len(unread) > 40
    for name, destination in experts.destinations():
        if name.startswith(f"{PREFIX}experts."):
            tensors[name.removeprefix(PREFIX)][unread] = torch.nan
            destination.write(tensors[name.removeprefix(PREFIX)])
    assert torch.equal(experts.add_to(dense.clone(), hidden), before)


def test_two_grouped_products_whatever_the_number_of_experts(tmp_path: Path) -> None:
    seen = []
    for num_experts, count in ((8, 2), (64, 2), (64, 50)):
        experts, _ = make(tmp_path / f"{num_experts}-{count}", num_experts=num_experts)
        dense, hidden = rows(count, seed=1), rows(count, seed=2)
        with Operations() as operations:
            experts.add_to(dense, hidden)
        seen.append(operations.counts)
    assert sum(count for name, count in seen[0].items() if "grouped_mm" in name) == 2
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize(
    ("num_rows", "num_experts", "top_k", "hidden_size", "size"),
    [(1, 8, 3, 32, 24), (20, 4, 2, 160, 40), (9, 5, 5, 72, 72), (300, 6, 1, 32, 8)],
)
@pytest.mark.parametrize("weights_dtype", [torch.float32, FP8])
def test_the_kernels_agree_with_plain_torch(
    num_rows: int, num_experts: int, top_k: int, hidden_size: int, size: int, weights_dtype: torch.dtype
) -> None:
    """At sizes that fill no block."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_rows, hidden_size, generator=generator)
    shapes = (hidden_size, 2 * size), (size, hidden_size)
    gate_up, down = (ExpertMatrices(num_experts, *shape, weights_dtype, torch.device("cpu")) for shape in shapes)
    for experts, (in_features, out_features) in zip((gate_up, down), shapes, strict=True):
        matrices = torch.randn(num_experts, out_features, in_features, generator=generator) / in_features**0.5
        experts.matrices = experts.matrices.mT.contiguous().mT  # as on a GPU
        experts.destination().write(matrices)
    scores, expert_ids = torch.randn(num_rows, num_experts, generator=generator).topk(top_k, -1)
    sorted_ids, order = expert_ids.flatten().sort(stable=True)
    ends = torch.searchsorted(sorted_ids, torch.arange(num_experts), right=True, out_int32=True)
    arguments = hidden, gate_up, down, scores.softmax(-1), order, sorted_ids, ends
    torch.testing.assert_close(mix_by_kernels(*arguments), mix_by_grouped_products(*arguments), atol=1e-5, rtol=0.0)
