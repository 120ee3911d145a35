"""Figures of a finished pair, in float32 on the CPU."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from training import evaluation, export, generation
from training.acceleration import Say
from training.network import Drafter, Target

_DRAFTS = (4, 7)  # a round
_SAMPLING = generation.Gumbel(temperature=0.8, top_k=64, top_p=0.95, seed=7)


@dataclass(frozen=True)
class Pair:
    """Target, drafter and their tokenizer."""

    target: Target
    drafter: Drafter
    tokenizer: Tokenizer

    @classmethod
    def load(cls, folder: Path) -> "Pair":
        """Read the pair in `folder`."""
        cpu = torch.device("cpu")
        return cls(
            export.load_target(folder / "target", cpu).requires_grad_(False),
            export.load_drafter(folder / "drafter", cpu).requires_grad_(False),
            Tokenizer.from_file(str(folder / "target" / "tokenizer.json")),
        )


def acceptance(pair: Pair, texts: list[str], emitted: int, say: Say) -> list[dict[str, Any]]:
    """Acceptance lengths after `texts`, greedy and sampled, for each number of drafts a round."""
    encoded = [pair.tokenizer.encode(text).ids for text in texts]
    figures: list[dict[str, Any]] = []
    for sampling in (None, _SAMPLING):
        written = evaluation.continue_prompts(pair.target, encoded, emitted, sampling)
        for drafts in _DRAFTS:
            found = evaluation.measure(pair.target, pair.drafter, written, drafts, sampling)
            figures.append(
                {
                    "temperature": 0.0 if sampling is None else sampling.temperature,
                    "drafts": drafts,
                    "prompts": len(texts),
                    "emitted": emitted,
                    "mean": found.mean,
                    "median": found.median,
                    **asdict(found),
                }
            )
            say(f"temperature {figures[-1]['temperature']}, {drafts} drafts: {found.line()}")
    return figures


def samples(pair: Pair, texts: list[str], count: int = 2, emitted: int = 96) -> list[dict[str, str]]:
    """Greedy continuations of `count` of the texts."""
    chosen = texts[:: max(1, len(texts) // count)][:count]
    encoded = [pair.tokenizer.encode(text).ids for text in chosen]
    written = evaluation.continue_prompts(pair.target, encoded, emitted, None)
    return [
        {
            "prompt": text,
            "continuation": pair.tokenizer.decode(written.tokens[row, start : start + emitted].tolist()),
        }
        for row, (text, start) in enumerate(zip(chosen, written.starts, strict=True))
    ]
