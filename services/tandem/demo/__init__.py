"""The demo pair: a small Gemma 4 target with its MTP drafter, shipped inside the package."""

import json
from pathlib import Path

_FOLDER = Path(__file__).parent

DEMO_TARGET = _FOLDER / "target"
DEMO_DRAFTER = _FOLDER / "drafter"
HELD_OUT_PROMPTS = _FOLDER / "heldout_prompts.json"


def held_out_prompts() -> list[str]:
    """Beginnings of Python files that the pair never saw in training."""
    return [prompt["text"] for prompt in json.loads(HELD_OUT_PROMPTS.read_text(encoding="utf-8"))]
