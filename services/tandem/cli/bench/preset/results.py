"""Everything that one benchmark of a shape found out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from tandem.cli.bench.goal import Goal
from tandem.cli.bench.machine import Machine
from tandem.cli.bench.preset.config import PresetConfig
from tandem.cli.bench.preset.figures import Run
from tandem.cli.bench.preset.floor import Floor
from tandem.cli.bench.preset.kind import Kind, Way
from tandem.cli.bench.preset.memory import Memory
from tandem.cli.bench.preset.parts import Parts


@dataclass(frozen=True)
class Device:
    """Where the networks are."""

    name: str
    read_bytes_per_second: float  # measured


@dataclass(frozen=True)
class Measured:
    """All runs of one kind of texts, made in one way."""

    way: Way
    kind: Kind
    runs: tuple[Run, ...]
    floor: Floor
    parts: Parts | None  # None: not profiled

    def median(self, name: str) -> float:
        """Of one figure of the runs."""
        values: list[float] = [getattr(run, name) for run in self.runs]
        return median(values)


@dataclass(frozen=True)
class PeerMeasured:
    """Rounds of transformers at batch 1; one sample a text."""

    is_assisted: bool
    prompt_tokens: int
    ms_per_round: tuple[float, ...]

    @property
    def name(self) -> str:
        """For people."""
        return f"transformers, {'assisted' if self.is_assisted else 'plain'}"


@dataclass(frozen=True)
class PresetResults:
    """The figures, and what they are figures of."""

    config: PresetConfig
    shape: str
    machine: Machine
    device: Device
    measured: tuple[Measured, ...]
    memory: Mapping[str, Memory]  # by the name of the way
    peers: tuple[PeerMeasured, ...]
    seconds: float  # that all of it took

    def find(self, way: Way, batch: int, prompt_tokens: int) -> Measured | None:
        """One measurement; None if it was not made."""
        for one in self.measured:
            if (one.way, one.kind.batch, one.kind.prompt_tokens) == (way, batch, prompt_tokens):
                return one
        return None

    def floor_share(self, one: Measured) -> float:
        """How much of a round's time the reading alone would take."""
        return one.floor.milliseconds(self.device.read_bytes_per_second) / one.median("ms_per_round")

    def to_json(self, goals: Sequence[Goal]) -> str:
        """All of it with its samples, the medians beside them, and what is wanted of some."""
        figures = asdict(self) | {"goals": [asdict(goal) for goal in goals]}
        for shown, one in zip(figures["measured"], self.measured, strict=True):
            shown["name"] = f"{one.way.name}, {one.kind.name}"
            shown["medians"] = {name: one.median(name) for name in asdict(one.runs[0])}
            shown["floor"]["ms"] = one.floor.milliseconds(self.device.read_bytes_per_second)
            shown["floor"]["share"] = self.floor_share(one)
        return json.dumps(figures, indent=1) + "\n"
