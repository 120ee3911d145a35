"""The target against transformers on tiny random checkpoints, in one go and through the paged cache."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma4ForCausalLM

from tandem.attention.metadata import QueryBatch
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.config import read_target_config
from tandem.models.gemma4.parameters import MIN_STABLE_ROWS
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weights import load_target
from tests import checkpoints
from tests.checkpoints import FULL, SLIDING, make_tiny_pair
from tests.unit.attention.rounding import assert_alike
from tests.unit.models.paged import PagedRunner

TOLERANCE = 1e-5  # of the largest entry

VARIANTS: dict[str, dict[str, Any]] = {
    "k_eq_v": {},
    "own values": {"attention_k_eq_v": False},
    "shared kv": {"num_kv_shared_layers": 2},
    "every layer full but one": {"layer_types": [FULL, SLIDING, FULL], "num_hidden_layers": 3},
    "only full layers": {"layer_types": [FULL, FULL], "num_hidden_layers": 2},
    "no softcap": {"final_logit_softcapping": None},
    "tight softcap": {"final_logit_softcapping": 2.0},
    "large eps": {"rms_norm_eps": 0.1},
    "large eps, experts": {**checkpoints.VARIANTS["26b-a4b"], "rms_norm_eps": 0.1},
    "large eps, per-layer embeddings": {**checkpoints.VARIANTS["e2b"], "rms_norm_eps": 0.1},
}


def load(path: Path) -> tuple[Gemma4Target, Gemma4ForCausalLM]:
    return load_target(path, torch.float32, "cpu"), Gemma4ForCausalLM.from_pretrained(path).eval()


@pytest.fixture(scope="module", params=["31b", "26b-a4b", "e2b"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Gemma4Target, Gemma4ForCausalLM]:
    return load(make_tiny_pair(tmp_path_factory.mktemp("pair"), **checkpoints.VARIANTS[request.param])[0])


def random_tokens(count: int, seed: int = 0) -> list[int]:
    return torch.randint(0, 64, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def reference(model: Gemma4ForCausalLM, token_ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Normed hidden rows and logits of the whole text at once."""
    output = model(torch.tensor([token_ids]), output_hidden_states=True)
    return output.hidden_states[-1][0], output.logits[0]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE * float(theirs.abs().max()), rtol=0.0)


@pytest.mark.parametrize("name", VARIANTS)
def test_whole_prompt(name: str, tmp_path: Path) -> None:
    target, model = load(make_tiny_pair(tmp_path, **VARIANTS[name])[0])
    token_ids = random_tokens(45)
    hidden = PagedRunner(target).step({"a": token_ids})["a"]
    expected_hidden, expected_logits = reference(model, token_ids)
    assert_close(hidden, expected_hidden)
    assert_close(target.compute_logits(hidden), expected_logits)


@pytest.mark.parametrize("name", ["k_eq_v", "own values", "shared kv"])
def test_chunks_then_decode_then_verify(name: str, tmp_path: Path) -> None:
    target, model = load(make_tiny_pair(tmp_path, **VARIANTS[name])[0])
    token_ids = random_tokens(60)
    runner, rows, start = PagedRunner(target), [], 0
    for length in (3, 17, 11, 1, 1, 1, 4, 5, 1, 6, 2, 8):
        rows.append(runner.step({"a": token_ids[start : start + length]})["a"])
        start += length
    assert start == 60
    assert_close(torch.cat(rows), reference(model, token_ids)[0])


def test_rejected_rows_are_overwritten(pair: tuple[Gemma4Target, Gemma4ForCausalLM]) -> None:
    target, model = pair
    token_ids = random_tokens(40)
    runner = PagedRunner(target)
    rows = [runner.step({"a": token_ids[:20]})["a"]]
    for start in range(20, 40, 2):
        drafted = token_ids[start : start + 2] + random_tokens(3, seed=start)
        rows.append(runner.step({"a": drafted})["a"][:2])
        runner.reject("a", 3)
    assert_close(torch.cat(rows), reference(model, token_ids)[0])


def test_a_batch_equals_each_sequence_alone(pair: tuple[Gemma4Target, Gemma4ForCausalLM]) -> None:
    """For prefill, decode and verify rows of different lengths side by side."""
    target, _ = pair
    texts = {"a": random_tokens(60, 1), "b": random_tokens(60, 2), "c": random_tokens(60, 3)}
    steps = [
        {"a": 9},
        {"a": 1, "b": 30},
        {"a": 5, "b": 5, "c": 2},
        {"c": 1},
        {"a": 5, "b": 5, "c": 5},
        {"a": 1, "b": 1},
    ]
    together, rows = PagedRunner(target), {name: [] for name in texts}
    ends = dict.fromkeys(texts, 0)
    for lens in steps:
        tokens = {name: texts[name][ends[name] : ends[name] + length] for name, length in lens.items()}
        for name, hidden in together.step(tokens).items():
            rows[name].append(hidden)
            ends[name] += lens[name]
    for name, token_ids in texts.items():
        alone = PagedRunner(target, seed=9)
        for index, hidden in enumerate(torch.cat(rows[name])):
            assert_alike(alone.step({"a": [token_ids[index]]})["a"][0], hidden)


@pytest.mark.parametrize("name", checkpoints.VARIANTS)
def test_rows_round_alike_in_steps_of_few_and_of_many_rows(name: str, tmp_path: Path) -> None:
    target = load_target(make_tiny_pair(tmp_path, **checkpoints.VARIANTS[name])[0], torch.float32, "cpu")
    texts = {name: random_tokens(60, seed) for seed, name in enumerate("abc")}
    together = PagedRunner(target)
    steps = [
        together.step({name: text[start : start + 12] for name, text in texts.items()}) for start in range(0, 60, 12)
    ]
    for size in (MIN_STABLE_ROWS, MIN_STABLE_ROWS + 1, 15):
        for name, text in texts.items():
            alone = PagedRunner(target, seed=9)
            rows = [alone.step({"a": text[start : start + size]})["a"] for start in range(0, 60, size)]
            assert_alike(torch.cat(rows), torch.cat([step[name] for step in steps]), MIN_STABLE_ROWS)


def test_logits_of_a_row_do_not_depend_on_the_others(pair: tuple[Gemma4Target, Gemma4ForCausalLM]) -> None:
    target, _ = pair
    hidden = torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    together = target.compute_logits(hidden)
    assert together.dtype == torch.float32
    for row in range(9):
        assert_alike(target.compute_logits(hidden[row : row + 1])[0], together[row])


@pytest.mark.parametrize("name", ["31b", "e2b"])
def test_bfloat16_errs_no_more_than_transformers(name: str, tmp_path: Path) -> None:
    """Among experts, one choice that flips at a near-tie would outweigh all other rounding."""
    path, _ = make_tiny_pair(tmp_path, **checkpoints.VARIANTS[name])
    token_ids = random_tokens(40)
    exact = reference(Gemma4ForCausalLM.from_pretrained(path), token_ids)[1]
    theirs = reference(Gemma4ForCausalLM.from_pretrained(path, dtype=torch.bfloat16), token_ids)[1]
    target = load_target(path, torch.bfloat16, "cpu")
    ours = target.compute_logits(PagedRunner(target).step({"a": token_ids})["a"])
    assert ours.dtype == torch.float32
    assert (ours - exact).square().mean() < 1.2 * (theirs.float() - exact).square().mean()


def test_groups_and_shared_layers(tmp_path: Path) -> None:
    target, _ = load(make_tiny_pair(tmp_path, num_kv_shared_layers=2)[0])
    assert {group.name: group.layer_ids for group in target.kv_groups} == {SLIDING: (0, 1, 3), FULL: (2,)}
    assert target.config.kv_owners == (0, 1, 2, 3, 3, 2)
    assert target.drafter_layers == {SLIDING: 3, FULL: 2}


def test_other_devices_use_the_table_as_head(tmp_path: Path) -> None:
    """On the meta device, which computes shapes only, as on any that is not a CPU."""
    config = read_target_config(make_tiny_pair(tmp_path)[0])
    target = Gemma4Target(config, torch.bfloat16, "meta")
    shapes = {name: destination.shape for name, destination in target.destinations()}
    assert shapes == {name: destination.shape for name, destination in Gemma4Target(config).destinations()}
    tables = {group.name: [[0, 1]] for group in target.kv_groups}
    kv = KvStorage(target.kv_groups, dict.fromkeys(tables, 2), 4, torch.bfloat16, "meta")
    metadata = target.backend.prepare(QueryBatch((6,), (0,), (6,), tables), target.kv_groups, 4)
    hidden = target.forward(torch.zeros(6, dtype=torch.int64, device="meta"), metadata, kv)
    logits = target.compute_logits(hidden)
    assert (hidden.shape, hidden.dtype, logits.shape, logits.dtype) == ((6, 32), torch.bfloat16, (6, 64), torch.float32)
