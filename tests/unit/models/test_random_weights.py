"""Weights that nobody trained: every tensor is filled, and what comes out looks like a network's."""

import re
from pathlib import Path

import pytest
import torch

from tandem.models.gemma4.config import read_target_config
from tandem.models.gemma4.drafter import Gemma4MtpDrafter
from tandem.models.gemma4.random_weights import RandomWeights
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weights import load_drafter, load_target
from tests.checkpoints import VARIANTS, make_tiny_pair
from tests.unit.models.paged import PagedRunner

TOKEN_IDS = list(range(2, 60))


@pytest.fixture(params=VARIANTS)
def shapes(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """Folders that hold configurations alone."""
    pair = make_tiny_pair(tmp_path, **VARIANTS[request.param])
    for folder in pair:
        (folder / "model.safetensors").unlink()
    return pair


def random_pair(shapes: tuple[Path, Path]) -> tuple[Gemma4Target, Gemma4MtpDrafter]:
    target_folder, drafter_folder = shapes
    weights = RandomWeights("cpu")
    target = load_target(target_folder, torch.float32, "cpu", weights=weights)
    config = read_target_config(target_folder)
    drafter = load_drafter(drafter_folder, config, torch.float32, "cpu", target.embed_tokens, weights=weights)
    return target, drafter


def test_rows_keys_and_logits_are_of_a_networks_size(shapes: tuple[Path, Path]) -> None:
    target, _ = random_pair(shapes)
    runner = PagedRunner(target)
    hidden = runner.step({"a": TOKEN_IDS})["a"]
    logits = target.compute_logits(hidden)
    assert hidden.isfinite().all() and 0.5 < hidden.std() < 2.0
    assert 0.3 < logits.std() < 3.0
    written = torch.cat([runner.kv[layer].flatten() for layer in runner.kv.layer_ids])
    written = written[written.isfinite()]  # the runner poisons what is never written
    assert 0.2 < written.std() < 3.0
    chosen = logits.argmax(-1)
    assert len(chosen.unique()) > len(TOKEN_IDS) // 4, "texts are not one word again and again"


def test_every_tensor_is_drawn(shapes: tuple[Path, Path]) -> None:
    """Norms are near one, and all else is spread around zero as far as its number of inputs says."""
    for network in random_pair(shapes):
        for name, destination in network.destinations():
            values = destination.views[0].double() / destination.gain
            if not destination.views[0].is_floating_point():
                assert values.flatten().sort().values.equal(torch.arange(values.numel()).double())
            elif len(destination.shape) > 1:
                assert values.std() * destination.shape[-1] ** 0.5 == pytest.approx(1.0, rel=0.2), name
            elif not name.endswith(("q_norm.weight", "k_norm.weight")):
                assert values.mean() == pytest.approx(1.0, abs=0.2), name


def test_the_same_numbers_each_time(shapes: tuple[Path, Path]) -> None:
    for one, other in zip(random_pair(shapes), random_pair(shapes), strict=True):
        for (name, mine), (_, theirs) in zip(one.destinations(), other.destinations(), strict=True):
            assert torch.equal(mine.views[0], theirs.views[0]), name


def test_pieces_make_the_whole(shapes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.models.gemma4.random_weights.PIECE_NUMBERS", 64)
    wanted = dict(random_pair(shapes)[0].destinations())
    reached = dict.fromkeys(wanted, 0)
    for name, start, piece in RandomWeights("cpu").open(shapes[0], wanted, re.compile("")).read(wanted):
        assert start == reached[name] and piece.shape[1:] == wanted[name].shape[1:]
        reached[name] += piece.shape[0]
    assert reached == {name: destination.shape[0] for name, destination in wanted.items()}
