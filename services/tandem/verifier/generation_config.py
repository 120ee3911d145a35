"""What a checkpoint says about sampling and about the ends of a text."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem.core.errors import CheckpointError

FILE_NAME = "generation_config.json"


@dataclass(frozen=True)
class GenerationConfig:
    """The checkpoint's own defaults, in force for fields that a request leaves out."""

    eos_token_ids: frozenset[int]
    temperature: float
    top_k: int
    top_p: float


def read_generation_config(folder: Path) -> GenerationConfig:
    """Reads generation_config.json, and config.json for what it leaves out.

    Without `do_sample` the checkpoint means greedy decoding, as it does in transformers.

    Raises:
        CheckpointError: a file is damaged, or a value is of the wrong kind.
    """
    generation, model = _read(folder / FILE_NAME), _read(folder / "config.json")
    eos = generation.get("eos_token_id", model.get("eos_token_id"))
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(isinstance(token_id, int) and token_id >= 0 for token_id in ids):
        raise CheckpointError(f"{folder / FILE_NAME}: eos_token_id must be a token id or a list of them")
    is_sampled = generation.get("do_sample", False)
    return GenerationConfig(
        eos_token_ids=frozenset(ids),
        temperature=_number(folder, generation, "temperature", 1.0) if is_sampled else 0.0,
        top_k=int(_number(folder, generation, "top_k", 50)),
        top_p=_number(folder, generation, "top_p", 1.0),
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: must hold a JSON object")
    return values


def _number(folder: Path, values: dict[str, Any], name: str, default: float) -> float:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError(f"{folder / FILE_NAME}: {name} must be a number")
    return value
