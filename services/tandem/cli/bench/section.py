"""A measurement of one feature, as it stands in the table."""

from dataclasses import dataclass

from tandem.cli.bench.goal import Goal


@dataclass(frozen=True)
class Section:
    """Lines for people, figures for the list of goals, and every sample for the JSON file."""

    name: str
    lines: tuple[str, ...]
    goals: tuple[Goal, ...]
    samples: dict[str, list[float]]  # what was measured -> its samples, with the unit in its name
