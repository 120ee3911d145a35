"""Held-out prompts: beginnings of functions and classes from files that were never trained on."""

import json
import random
from pathlib import Path

from training.corpus import Document

_SHORTEST, _LONGEST = 300, 700  # characters


def choose_prompts(held_out: list[Document], a_file: int = 2, seed: int = 1) -> list[dict[str, str]]:
    """Up to `a_file` prompts from every held-out file, each whole lines of 300 to 700 characters."""
    generator = random.Random(seed)
    prompts: list[dict[str, str]] = []
    for document in sorted(held_out, key=lambda document: document.path):
        lines = document.text.splitlines(keepends=True)
        starts = [
            index for index, line in enumerate(lines) if line.startswith(("def ", "class ", "    def ", "import "))
        ]
        generator.shuffle(starts)
        taken = 0
        for start in starts:
            text = ""
            wanted = generator.randint(_SHORTEST, _LONGEST)
            for line in lines[start:]:
                if len(text) >= wanted or len(text) + len(line) > _LONGEST:
                    break
                text += line
            if len(text) >= _SHORTEST and text.strip() and taken < a_file:
                prompts.append({"source": document.path, "text": text})
                taken += 1
    return prompts


def save(prompts: list[dict[str, str]], path: Path) -> None:
    """Write the prompts as a JSON list of `source` and `text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(prompts, indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> list[str]:
    """The prompts' texts."""
    return [str(prompt["text"]) for prompt in json.loads(path.read_text())]
