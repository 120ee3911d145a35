"""Everything that one benchmark found out."""

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from tandem.cli.bench.acceptance import Acceptance
from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.latency import FirstToken
from tandem.cli.bench.machine import Machine
from tandem.cli.bench.section import Section
from tandem.cli.bench.throughput import How, Measured, Throughput


@dataclass(frozen=True)
class Results:
    """The figures, and what they are figures of."""

    config: BenchConfig
    machine: Machine
    num_prompts: int = 0  # of the throughput measurement
    throughput: tuple[Measured, ...] = ()
    equal_texts: Mapping[How, int] = field(
        default_factory=dict
    )  # texts that were those of the drafted run, token for token
    acceptance: tuple[Acceptance, ...] = ()  # greedy, then sampled; fewer where nothing could be measured
    first_token: FirstToken | None = None
    sections: tuple[Section, ...] = ()  # one a feature
    seconds: float = 0.0  # that all of it took

    def medians(self, how: How, batch: int) -> Throughput | None:
        """The medians of one measurement; None if it was not made."""
        for measured in self.throughput:
            if (measured.how, measured.batch) == (how, batch):
                return measured.medians
        return None

    def to_json(self) -> str:
        """All of it with its samples, and the medians beside them."""
        figures = asdict(self)
        figures["equal_texts"] = {how.value: count for how, count in self.equal_texts.items()}
        for shown, measured in zip(figures["throughput"], self.throughput, strict=True):
            shown["medians"] = asdict(measured.medians)
        return json.dumps(figures, indent=1, default=_plain) + "\n"


def _plain(value: object) -> object:
    assert isinstance(value, enum.Enum)
    return value.value
