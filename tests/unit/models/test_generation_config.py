"""What a checkpoint says of sampling, ends and drafting, in the words of Gemma 4's own files."""

import json
from pathlib import Path
from typing import Any

import pytest

from tandem.core.errors import CheckpointError
from tandem.models.generation_config import GenerationConfig, read_generation_config


def read(folder: Path, **values: Any) -> GenerationConfig:
    (folder / "generation_config.json").write_text(json.dumps(values))
    return read_generation_config(folder)


def test_what_gemma_4_says(tmp_path: Path) -> None:
    generation = read(tmp_path, eos_token_id=[1, 106, 50], do_sample=True, temperature=1.0, top_k=64, top_p=0.95)
    assert generation == GenerationConfig(frozenset([1, 106, 50]), 1.0, 64, 0.95, (), 4)


def test_greedy_unless_it_says_so_and_ends_as_the_model_says(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    generation = read_generation_config(tmp_path)
    assert (generation.eos_token_ids, generation.temperature) == (frozenset([7]), 0.0)
    generation = read(tmp_path, eos_token_id=[1, 2], do_sample=True)
    assert (generation.eos_token_ids, generation.temperature, generation.top_k) == (frozenset([1, 2]), 1.0, 50)


def test_what_a_drafter_says(tmp_path: Path) -> None:
    generation = read(tmp_path, num_assistant_tokens=6, suppress_tokens=[258883, 258882, 258883])
    assert (generation.num_assistant_tokens, generation.suppress_token_ids) == (6, (258882, 258883))
    generation = read(tmp_path, num_assistant_tokens=None, suppress_tokens=None)
    assert (generation.num_assistant_tokens, generation.suppress_token_ids) == (4, ())


@pytest.mark.parametrize(
    "values",
    [
        {"eos_token_id": "</s>"},
        {"eos_token_id": [1, -1]},
        {"suppress_tokens": 3},
        {"suppress_tokens": [True]},
        {"num_assistant_tokens": 0},
        {"num_assistant_tokens": "4"},
        {"top_k": "64"},
    ],
)
def test_values_of_the_wrong_kind_are_named(values: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=next(iter(values))):
        read(tmp_path, **values)
