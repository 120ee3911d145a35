"""A pair of networks by their config.json files alone, and a tokenizer that goes with them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel

from tandem.core.errors import ConfigError
from tandem.models.gemma4.config import read_fields
from tandem.models.gemma4.presets import DRAFTERS, TARGETS

BOS_TOKEN = "<bos>"  # noqa: S105
TARGET, DRAFTER = "target", "drafter"


@dataclass(frozen=True)
class Shape:
    """What the config.json files of target and drafter hold."""

    name: str
    target: dict[str, Any]
    drafter: dict[str, Any]

    @property
    def vocab_size(self) -> int:
        """Tokens of both."""
        text = self.target.get("text_config", self.target)
        return int(text["vocab_size"])


def find_shape(preset: str) -> Shape:
    """One of the presets, or that of a folder with `target/config.json` and `drafter/config.json`.

    Raises:
        ConfigError: there is neither.
    """
    if preset in TARGETS:
        return Shape(preset, TARGETS[preset], DRAFTERS[preset])
    folder = Path(preset)
    if not folder.is_dir():
        raise ConfigError(f"--preset {preset}: is neither a folder nor one of {', '.join(TARGETS)}")
    target, drafter = (dict(read_fields(folder / part).values) for part in (TARGET, DRAFTER))
    return Shape(folder.resolve().name, target, drafter)


def write_shape(shape: Shape, folder: Path) -> tuple[Path, Path]:
    """Makes checkpoint folders without weights; returns the target's and the drafter's.

    The target's has a tokenizer, for the gateway: a word for each token, decoded as Gemma's are.
    """
    paths = folder / TARGET, folder / DRAFTER
    for path, config in zip(paths, (shape.target, shape.drafter), strict=True):
        path.mkdir()
        (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    words = {BOS_TOKEN: 0} | {f"\u2581{token_id}": token_id for token_id in range(1, shape.vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, unk_token=BOS_TOKEN))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(paths[0] / "tokenizer.json"))
    (paths[0] / "tokenizer_config.json").write_text(json.dumps({"bos_token": BOS_TOKEN}), encoding="utf-8")
    return paths
