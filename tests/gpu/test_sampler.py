"""The sampling kernels on a GPU at the size of Gemma's vocabulary: the ids that plain torch chooses."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from tandem.core.sampling_params import SamplingParams
from tandem.sampling.rows import SamplingRows
from tandem.sampling.sampler import plain_sample, sample
from tests.unit.sampling.reference import chi_square_p_value, filtered_distribution

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

VOCAB_SIZE = 262_144
DEVICE = torch.device("cuda")

SETTINGS = {
    "greedy": SamplingParams(temperature=0.0),
    "usual": SamplingParams(temperature=1.0, top_k=64, top_p=0.95),
    "top-k": SamplingParams(temperature=1.3, top_k=7),
    "wide top-k": SamplingParams(top_k=1000, top_p=0.9, min_p=0.001),
    "plain": SamplingParams(temperature=1.2),
    "top-p": SamplingParams(top_p=0.9),
    "low top-p": SamplingParams(top_p=0.2),
    "min-p": SamplingParams(min_p=0.05),
    "cold": SamplingParams(temperature=0.3, top_p=0.99),
}


def random_logits(num_rows: int, spread: float, seed: int) -> torch.Tensor:  # -> [num_rows, VOCAB_SIZE]
    """Rounded as bfloat16 logits are, so that many are equal."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    logits = torch.randn(num_rows, VOCAB_SIZE, generator=generator, device=DEVICE) * spread
    return logits.bfloat16().float()


def make_rows(params: list[SamplingParams], seed: int = 0) -> SamplingRows:
    """Each with a seed and a position of its own."""
    generator = torch.Generator().manual_seed(seed)
    seeds = torch.randint(2**63 - 1, (len(params),), generator=generator).tolist()
    positions = torch.randint(2**31, (len(params),), generator=generator).tolist()
    return SamplingRows.from_params(
        [(replace(one, seed=seed), position) for one, seed, position in zip(params, seeds, positions, strict=True)],
        DEVICE,
    )


def to(rows: SamplingRows, device: str) -> SamplingRows:
    moved = {name: value.to(device) for name, value in vars(rows).items() if isinstance(value, torch.Tensor)}
    return replace(rows, **moved)


@pytest.mark.parametrize("spread", [1.0, 5.0])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_ids_of_plain_torch(name: str, spread: float) -> None:
    """512 rows of each; on the CPU, where the logarithms are others, 8 of them."""
    for seed in range(4):
        logits = random_logits(128, spread, seed)
        rows = make_rows([SETTINGS[name]] * 128, seed)
        chosen = sample(logits, rows)
        assert chosen.tolist() == [
            token_id
            for part in range(0, 128, 16)
            for token_id in plain_sample(logits[part : part + 16], _part(rows, part, part + 16)).tolist()
        ]
        if seed == 0:
            assert chosen[:8].tolist() == plain_sample(logits[:8].cpu(), to(_part(rows, 0, 8), "cpu")).tolist()


def _part(rows: SamplingRows, first: int, last: int) -> SamplingRows:
    fields = {name: value[first:last] for name, value in vars(rows).items() if isinstance(value, torch.Tensor)}
    return replace(rows, **fields)


def test_a_row_does_not_depend_on_its_batch() -> None:
    """All settings in one batch, forwards and backwards, and each alone."""
    params = list(SETTINGS.values()) * 3
    logits, rows = random_logits(len(params), 3.0, 1), make_rows(params)
    together = sample(logits, rows).tolist()
    order = torch.arange(len(params), device=DEVICE).flip(0)
    fields = {name: value[order] for name, value in vars(rows).items() if isinstance(value, torch.Tensor)}
    assert sample(logits[order], replace(rows, **fields)).tolist() == together[::-1]
    assert [sample(logits[row : row + 1], _part(rows, row, row + 1)).item() for row in range(len(params))] == together


@pytest.mark.parametrize("name", ["usual", "top-p", "plain", "min-p"])
def test_samples_follow_the_filtered_distribution(name: str) -> None:
    """Chi-square over 20,000 seeds, of logits of which 40 matter."""
    logits = torch.full((1, VOCAB_SIZE), -60.0)
    places = torch.randperm(VOCAB_SIZE, generator=torch.Generator().manual_seed(0))[:40].sort().values
    logits[0, places] = torch.randn(40, generator=torch.Generator().manual_seed(1)) * 1.5
    counts: Counter[int] = Counter()
    rows = make_rows([SETTINGS[name]] * 200)
    spread = logits.to(DEVICE).expand(200, -1)
    for start in range(0, 20_000, 200):
        seeds = torch.arange(start, start + 200, device=DEVICE)
        counts.update(sample(spread, replace(rows, seeds=seeds)).tolist())
    distribution = filtered_distribution(logits[0, places].tolist(), SETTINGS[name])
    assert chi_square_p_value(counts, dict(zip(places.tolist(), distribution, strict=True))) > 1e-6


@pytest.mark.parametrize("params", [*SETTINGS.values(), SamplingParams(top_k=5000), SamplingParams(top_p=1e-9)])
def test_equal_logits(params: SamplingParams) -> None:
    """All of them, and all but a few; the order is then that of the ids, and a top-k has no floor to cut at."""
    logits = torch.full((4, VOCAB_SIZE), 1.25, device=DEVICE)
    logits[2:, 1000:1010] = 1.5
    logits[3] = -torch.inf
    logits[3, 77_777] = 0.0
    rows = make_rows([params] * 4)
    assert sample(logits, rows).tolist() == plain_sample(logits, rows).tolist()


def test_a_captured_graph_serves_any_rows() -> None:
    """Of tensors alone: nothing that the host knows of the rows is built in, and the host never waits."""
    given = make_rows(list(SETTINGS.values()))
    num_rows = len(SETTINGS)
    logits = random_logits(num_rows, 3.0, 2)
    fields = {name: value.clone() for name, value in vars(given).items() if isinstance(value, torch.Tensor)}
    rows = SamplingRows(**fields, is_all_greedy=False, max_top_k=None)
    sample(logits, rows)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        chosen = sample(logits, rows)
    for seed, params in enumerate(([*SETTINGS.values()][::-1], [SETTINGS["greedy"]] * num_rows)):
        others = make_rows(list(params), seed)
        for name, field in fields.items():
            field.copy_(getattr(others, name))
        logits.copy_(random_logits(num_rows, 3.0, seed))
        graph.replay()
        assert chosen.tolist() == plain_sample(logits, others).tolist()


def test_the_host_never_waits() -> None:
    logits, rows = random_logits(9, 3.0, 3), make_rows(list(SETTINGS.values()))
    sample(logits, rows)
    torch.cuda.set_sync_debug_mode("error")
    try:
        sample(logits, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
