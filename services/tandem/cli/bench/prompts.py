"""What the texts begin with."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tandem.core.errors import ConfigError
from tandem.demo import HELD_OUT_PROMPTS
from tandem.gateway.prompt import PromptEncoder
from tandem.models.checkpoint import Part, open_checkpoint
from tandem.v1 import types_pb2

MAX_CHARACTERS = 100_000
SHORT_CHARACTERS = 60

T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """A text and the token ids that the gateway makes of it."""

    text: str
    token_ids: tuple[int, ...]


def read_texts(path: str) -> list[str]:
    """The prompts of a file.

    Args:
        path: of a JSON list of objects with a `text`; empty for the demo pair's held-out prompts.

    Raises:
        ConfigError: it holds something else.
    """
    file = Path(path) if path else HELD_OUT_PROMPTS
    try:
        texts = [entry["text"] for entry in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{file} holds no prompts: {type(error).__name__}: {error}") from None
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ConfigError(f"{file} holds no prompts, or empty ones")
    return texts


async def encode(texts: Sequence[str], target: str) -> list[Prompt]:
    """The prompts as the target's gateway encodes them.

    Raises:
        ConfigError: the target has no usable tokenizer.
    """
    checkpoint = await asyncio.to_thread(open_checkpoint, target, Part.TEXT)
    encoder = PromptEncoder.load(checkpoint.folder, MAX_CHARACTERS)
    return [Prompt(text, tuple(await encoder.encode(types_pb2.GenerationSpec(text=text)))) for text in texts]


def spread(prompts: Sequence[T], count: int) -> list[T]:
    """`count` prompts from all over the list: neighbours are often from one source.

    Raises:
        ConfigError: there are fewer.
    """
    if len(prompts) < count:
        raise ConfigError(f"--batch {count} needs as many prompts; there are {len(prompts)}")
    return [prompts[index * len(prompts) // count] for index in range(count)]


def shorten(text: str) -> str:
    """The beginning of a text, for where the prompt should weigh little."""
    return text[:SHORT_CHARACTERS]
