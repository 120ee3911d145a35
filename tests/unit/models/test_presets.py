"""The presets at full size on the meta device, which computes shapes only, counted against transformers."""

import json
from math import prod
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from tandem.attention.metadata import QueryBatch
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.attention_config import FULL, SLIDING
from tandem.models.gemma4.config import read_target_config
from tandem.models.gemma4.drafter import Gemma4MtpDrafter
from tandem.models.gemma4.drafter_config import read_drafter_config
from tandem.models.gemma4.parameters import Destinations
from tandem.models.gemma4.presets import DRAFTERS, TARGETS, target_preset
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.gemma4.weights import check_pair

# Without buffers, such as layer scalars.
TARGET_PARAMETERS = {
    "gemma-4-31b": 30_697_345_280,
    "gemma-4-26b-a4b": 25_233_141_760,
    "gemma-4-12b": 11_907_350_272,
    "gemma-4-e4b": 7_463_013_376,
    "gemma-4-e2b": 4_628_569_344,
}
DRAFTER_PARAMETERS = {
    "gemma-4-31b": 469_518_592,
    "gemma-4-26b-a4b": 419_711_232,
    "gemma-4-12b": 422_856_960,
    "gemma-4-e4b": 78_517_760,
    "gemma-4-e2b": 77_731_328,
}
DRAFTER_LAYERS = {
    "gemma-4-31b": (58, 59),
    "gemma-4-26b-a4b": (28, 29),
    "gemma-4-12b": (46, 47),
    "gemma-4-e4b": (22, 23),
    "gemma-4-e2b": (13, 14),
}


def count(destinations: Destinations) -> int:
    buffers = (".layer_scalar", ".token_ordering")
    return sum(prod(destination.shape) for name, destination in destinations if not name.endswith(buffers))


def count_in_transformers(config: dict) -> int:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]](**config))
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name != "lm_head.weight")


def write(config: dict, path: Path) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("name", TARGETS)
def test_a_targets_parameters(name: str) -> None:
    target = Gemma4Target(target_preset(name), torch.bfloat16, "meta")
    assert count(target.destinations()) == TARGET_PARAMETERS[name]
    assert count_in_transformers(TARGETS[name]["text_config"]) == TARGET_PARAMETERS[name]


@pytest.mark.parametrize("name", DRAFTERS)
def test_a_drafter_fits_its_target(name: str, tmp_path: Path) -> None:
    config = read_drafter_config(write(DRAFTERS[name], tmp_path))
    check_pair(config, target_preset(name))
    assert count(Gemma4MtpDrafter(config, None, torch.bfloat16, "meta").destinations()) == DRAFTER_PARAMETERS[name]
    assert count_in_transformers(DRAFTERS[name]) == DRAFTER_PARAMETERS[name]


@pytest.mark.parametrize("name", TARGETS)
def test_a_preset_is_a_checkpoints_configuration(name: str, tmp_path: Path) -> None:
    assert read_target_config(write(TARGETS[name], tmp_path)) == target_preset(name)


@pytest.mark.parametrize("name", TARGETS)
def test_a_step_of_a_full_size_target(name: str) -> None:
    target = Gemma4Target(target_preset(name), torch.bfloat16, "meta")
    assert target.drafter_layers == dict(zip((SLIDING, FULL), DRAFTER_LAYERS[name], strict=True))
    tables = {group.name: [[0, 1]] for group in target.kv_groups}
    kv = KvStorage(target.kv_groups, dict.fromkeys(tables, 2), 4, torch.bfloat16, "meta")
    metadata = target.backend.prepare(QueryBatch((6,), (0,), (6,), tables), target.kv_groups, 4)
    hidden = target.forward(torch.zeros(6, dtype=torch.int64, device="meta"), metadata, kv)
    assert (hidden.shape, hidden.dtype) == ((6, target.config.hidden_size), torch.bfloat16)
    assert target.compute_logits(hidden).shape == (6, 262_144)
