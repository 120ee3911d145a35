"""What a checkpoint says about sampling, about the ends of a text, and about drafting."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandem.core.errors import CheckpointError

FILE_NAME = "generation_config.json"

_NUM_ASSISTANT_TOKENS = 4


@dataclass(frozen=True)
class GenerationConfig:
    """The checkpoint's own defaults, in force for fields that a request leaves out."""

    eos_token_ids: frozenset[int]
    temperature: float
    top_k: int
    top_p: float
    suppress_token_ids: tuple[int, ...]  # never chosen
    num_assistant_tokens: int  # of a drafter: draft tokens a round


def read_generation_config(folder: Path) -> GenerationConfig:
    """Reads generation_config.json, and config.json for what it leaves out.

    Without `do_sample` the checkpoint means greedy decoding, as it does in transformers.

    Raises:
        CheckpointError: a file is damaged, or a value is of the wrong kind.
    """
    generation, model = _read(folder / FILE_NAME), _read(folder / "config.json")
    source = str(folder / FILE_NAME)
    eos = generation.get("eos_token_id", model.get("eos_token_id"))
    num_assistant_tokens = generation.get("num_assistant_tokens")
    if num_assistant_tokens is None:
        num_assistant_tokens = _NUM_ASSISTANT_TOKENS
    if not _is_count(num_assistant_tokens) or num_assistant_tokens == 0:
        raise CheckpointError(f"{source}: num_assistant_tokens must be a positive number of tokens")
    is_sampled = generation.get("do_sample", False)
    return GenerationConfig(
        eos_token_ids=frozenset(_token_ids(source, "eos_token_id", [eos] if _is_count(eos) else eos)),
        temperature=_number(source, generation, "temperature", 1.0) if is_sampled else 0.0,
        top_k=int(_number(source, generation, "top_k", 50)),
        top_p=_number(source, generation, "top_p", 1.0),
        suppress_token_ids=tuple(sorted(_token_ids(source, "suppress_tokens", generation.get("suppress_tokens")))),
        num_assistant_tokens=num_assistant_tokens,
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


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _token_ids(source: str, name: str, ids: Any) -> set[int]:
    """The ids of a list, or none of null."""
    if ids is None:
        return set()
    if not isinstance(ids, list) or not all(_is_count(token_id) for token_id in ids):
        raise CheckpointError(f"{source}: {name} must list token ids")
    return set(ids)


def _number(source: str, values: dict[str, Any], name: str, default: float) -> float:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError(f"{source}: {name} must be a number")
    return value
