"""The figures of one or more JSON files as Markdown: `python -m tandem.cli.bench.preset.markdown FILE ...`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_COLUMNS = ("tokens/s", "with prompts", "first token", "tokens a round", "ms a round", "floor", "share of the floor")


def markdown(figures: dict[str, Any]) -> str:
    """Two tables: every measurement, and what is wanted beside what was measured."""
    return "\n".join([*_measured(figures), "", *_goals(figures)]).rstrip() + "\n"


def _measured(figures: dict[str, Any]) -> Iterator[str]:
    device, config = figures["device"], figures["config"]
    yield (
        f"{device['name']} ({device['read_bytes_per_second'] / 1e12:.2f} TB/s read), {figures['shape']}, "
        f"{config['dtype']}, K = {config['num_speculative_tokens']}, medians of {config['runs']} runs:"
    )
    yield ""
    yield _row("", *_COLUMNS)
    yield _row("---", *["---:"] * len(_COLUMNS))
    for one in figures["measured"]:
        medians, floor = one["medians"], one["floor"]
        yield _row(
            one["name"],
            f"{medians['tokens_per_second']:.1f}",
            f"{medians['whole_tokens_per_second']:.1f}",
            f"{medians['first_token_ms']:.0f} ms",
            f"{medians['acceptance_length']:.2f}",
            f"{medians['ms_per_round']:.2f}",
            f"{floor['ms']:.2f} ms",
            f"{floor['share']:.0%}",
        )


def _goals(figures: dict[str, Any]) -> Iterator[str]:
    if not figures["goals"]:
        return
    yield _row("", "measured", "goal", "reached")
    yield _row("---", "---:", "---:", "---")
    for goal in figures["goals"]:
        sign = "<=" if goal["is_upper_bound"] else ">="
        is_reached = goal["value"] <= goal["bound"] if goal["is_upper_bound"] else goal["value"] >= goal["bound"]
        measured, bound = f"{goal['value']:.2f}{goal['unit']}", f"{sign} {goal['bound']:g}{goal['unit']}"
        yield _row(goal["name"], measured, bound, "yes" if is_reached else "no")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(markdown(json.loads(Path(name).read_text(encoding="utf-8"))) for name in sys.argv[1:]))
