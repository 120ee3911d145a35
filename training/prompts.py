"""Held-out prompts: beginnings of functions and classes from files that were never trained on."""

import json
import random
from pathlib import Path

from training.corpus import Corpus

_SHORTEST, _LONGEST = 300, 700  # characters
_PASSAGE = 100  # characters; what shorter passages two files share is common usage
_LEFT = 1000  # characters that the file goes on for, so that its end is not the next thing to write


def choose_prompts(documents: Corpus, a_file: int = 3, seed: int = 1) -> list[dict[str, str]]:
    """Up to `a_file` prompts from every held-out file, each whole lines of 300 to 700 characters.

    Passages that some training file repeats are left out, though the files around them differ.
    """
    known = "\0".join(document.text for document in documents.train)
    generator = random.Random(seed)
    prompts: list[dict[str, str]] = []
    for document in sorted(documents.held_out, key=lambda document: document.path):
        lines = document.text.splitlines(keepends=True)
        starts = [
            index for index, line in enumerate(lines) if line.startswith(("def ", "class ", "    def ", "import "))
        ]
        generator.shuffle(starts)
        taken = 0
        for start in starts:
            text = ""
            wanted = generator.randint(_SHORTEST, _LONGEST)
            if sum(map(len, lines[start:])) < _LONGEST + _LEFT:
                continue
            for line in lines[start:]:
                if len(text) >= wanted or len(text) + len(line) > _LONGEST:
                    break
                text += line
            around = "".join(lines[start:])[: len(text) + _LEFT]
            if len(text) >= _SHORTEST and text.strip() and not _repeats(around, known):
                # The newline goes with the next line's indentation into one token, so the prompt must not end with it.
                prompts.append({"source": document.path, "text": text.rstrip()})
                taken += 1
            if taken == a_file:
                break
    random.Random(seed).shuffle(prompts)  # so that any first few come from many files
    return prompts


def _repeats(text: str, known: str) -> bool:
    """Whether a passage of `text` also stands in `known`."""
    return any(text[start : start + _PASSAGE] in known for start in range(0, len(text) - _PASSAGE + 1, _PASSAGE // 2))


def save(prompts: list[dict[str, str]], path: Path) -> None:
    """Write the prompts as a JSON list of `source` and `text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(prompts, indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> list[str]:
    """The prompts' texts."""
    return [str(prompt["text"]) for prompt in json.loads(path.read_text())]
