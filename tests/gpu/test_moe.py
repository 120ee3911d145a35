"""The mixture of experts on a GPU in bfloat16, against float64 at the size of 26B-A4B."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tandem.models.gemma4.config import ExpertsConfig, Gemma4TextConfig
from tandem.models.gemma4.moe import MixtureOfExperts, mix_by_grouped_products
from tests.gpu.experts import PREFIX, one_layer_config, random_experts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

DEVICE = torch.device("cuda")
ROWS = (1, 2, 8, 64, 300)
RELATIVE_ERROR = 0.01  # of a few roundings to bfloat16


@pytest.fixture(scope="module")
def config() -> Gemma4TextConfig:
    return one_layer_config()


@pytest.fixture(scope="module")
def experts(config: Gemma4TextConfig) -> MixtureOfExperts:
    return random_experts(config, DEVICE, seed=0)


def random_rows(count: int, config: Gemma4TextConfig, seed: int = 1) -> torch.Tensor:  # -> [count, hidden_size]
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(count, config.hidden_size, generator=generator, device=DEVICE, dtype=torch.bfloat16)


def float64(experts: MixtureOfExperts, name: str) -> torch.Tensor:
    """A tensor as the checkpoint would hold it."""
    return dict(experts.destinations())[f"{PREFIX}{name}"].views[0].double()


def normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight


def mixed(
    experts: MixtureOfExperts,
    hidden: torch.Tensor,  # [T, hidden_size]
    expert_ids: torch.Tensor,  # [T, k]
    weights: torch.Tensor,  # [T, k]
) -> torch.Tensor:  # [T, hidden_size]
    """Expert by expert in float64, for the experts that were chosen."""
    rows = normed(hidden.double(), float64(experts, "pre_feedforward_layernorm_2.weight"))
    gate_up, down = float64(experts, "experts.gate_up_proj"), float64(experts, "experts.down_proj")
    output = torch.zeros_like(rows)
    for expert in expert_ids.unique().tolist():
        index, place = (expert_ids == expert).nonzero(as_tuple=True)
        gate, up = (rows[index] @ gate_up[expert].t()).chunk(2, -1)
        chosen = (F.gelu(gate, approximate="tanh") * up) @ down[expert].t()
        output.index_add_(0, index, chosen * weights[index, place, None].double())
    return output


@pytest.mark.parametrize("count", ROWS)
def test_the_router(count: int, config: Gemma4TextConfig, experts: MixtureOfExperts) -> None:
    """The experts chosen are those of the highest scores, but for ties within rounding."""
    assert config.experts is not None
    hidden = random_rows(count, config)
    expert_ids, weights = experts._route(hidden)
    rows = normed(hidden.double(), float64(experts, "router.scale"))
    scores = rows @ float64(experts, "router.proj.weight").t() * config.hidden_size**-0.5
    chosen = scores.gather(1, expert_ids)
    best = scores.topk(config.experts.top_k, -1).values
    assert (chosen.sort(-1, descending=True).values - best).abs().max() < 0.05
    expected = chosen.softmax(-1) * float64(experts, "router.per_expert_scale")[expert_ids]
    assert (weights - expected).abs().max() < 0.02


@pytest.mark.parametrize("count", ROWS)
def test_the_experts(count: int, config: Gemma4TextConfig, experts: MixtureOfExperts) -> None:
    dense, hidden = random_rows(count, config, seed=2), random_rows(count, config)
    expert_ids, weights = experts._route(hidden)
    expected = normed(dense.double(), float64(experts, "post_feedforward_layernorm_1.weight")) + normed(
        mixed(experts, hidden, expert_ids, weights), float64(experts, "post_feedforward_layernorm_2.weight")
    )
    error = experts.add_to(dense.clone(), hidden).double() - expected
    assert error.norm() / expected.norm() < RELATIVE_ERROR


def test_all_rows_on_the_same_experts(config: Gemma4TextConfig, experts: MixtureOfExperts) -> None:
    hidden = random_rows(1, config).repeat(200, 1)
    expert_ids, weights = experts._route(hidden)
    output = experts._mix(hidden, expert_ids, weights)
    alone = experts._mix(hidden[:1], expert_ids[:1], weights[:1])
    assert torch.equal(output, alone.expand_as(output))


@pytest.mark.parametrize("count", [2, 8, 64, 256])
def test_a_row_rounds_as_it_does_alone(count: int, config: Gemma4TextConfig, experts: MixtureOfExperts) -> None:
    """Given its experts: the router's product is torch's own."""
    hidden = random_rows(count, config)
    expert_ids, weights = experts._route(hidden)
    together = experts._mix(hidden, expert_ids, weights)
    for row in range(0, count, 7):
        part = slice(row, row + 1)
        assert torch.equal(experts._mix(hidden[part], expert_ids[part], weights[part]), together[part])


def test_plain_torch_gives_the_same(config: Gemma4TextConfig, experts: MixtureOfExperts) -> None:
    hidden = random_rows(40, config)
    expert_ids, weights = experts._route(hidden)
    by_kernels = experts._mix(hidden, expert_ids, weights).double()
    experts._mix_sorted, kernels = mix_by_grouped_products, experts._mix_sorted
    by_products = experts._mix(hidden, expert_ids, weights).double()
    experts._mix_sorted = kernels
    assert (by_kernels - by_products).norm() / by_products.norm() < RELATIVE_ERROR


@pytest.mark.parametrize("count", ROWS)
def test_the_host_never_waits(count: int, config: Gemma4TextConfig, experts: MixtureOfExperts) -> None:
    dense, hidden = random_rows(count, config, seed=2), random_rows(count, config)
    experts.add_to(dense.clone(), hidden)
    torch.cuda.set_sync_debug_mode("error")
    try:
        experts.add_to(dense.clone(), hidden)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_captured_graph_follows_its_rows(config: Gemma4TextConfig, experts: MixtureOfExperts) -> None:
    """Other rows choose other experts, and need no other graph."""
    dense, hidden = random_rows(8, config, seed=2), random_rows(8, config)
    experts.add_to(dense.clone(), hidden)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = experts.add_to(dense.clone(), hidden)
    for seed in (3, 4):
        hidden.copy_(random_rows(8, config, seed))
        graph.replay()
        assert torch.equal(output, experts.add_to(dense.clone(), hidden))


def test_few_experts(config: Gemma4TextConfig) -> None:
    """Every row chooses all of them."""
    small = replace(config, experts=ExpertsConfig(num_experts=4, top_k=4, intermediate_size=704))
    experts = random_experts(small, DEVICE, seed=5)
    hidden = random_rows(9, small)
    expert_ids, weights = experts._route(hidden)
    expected = mixed(experts, hidden, expert_ids, weights)
    error = experts._mix(experts._pre_norm(hidden), expert_ids, weights).double() - expected
    assert error.norm() / expected.norm() < RELATIVE_ERROR
