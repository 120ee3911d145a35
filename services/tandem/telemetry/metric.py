"""A row of the table of metrics: what a metric is called, counts and is told by."""

import enum
from dataclasses import dataclass
from functools import partial

GATEWAY, VERIFIER, DRAFTER = "gateway", "verifier", "drafter"
# Upper bounds in seconds: of what a request waits for, and of parts of a round.
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
ROUND_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)


class Kind(enum.Enum):
    """How a metric's number behaves."""

    COUNTER = "counter"  # only rises
    GAUGE = "gauge"  # the state now
    HISTOGRAM = "histogram"  # how often it was how large


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    name: str
    kind: Kind
    unit: str  # what one of it is
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()  # of the only label, where all are known: such series begin at 0
    services: tuple[str, ...] = (VERIFIER,)  # that emit it
    convention: str = ""  # its name among OpenTelemetry's semantic conventions
    bounds: tuple[float, ...] = ()  # of a histogram's buckets, rising; one more is for what is larger

    @property
    def otlp_name(self) -> str:
        """The convention's name, or the own one without the endings that Prometheus wants and a backend adds."""
        return self.convention or self.name.removesuffix("_total")


def number(
    kind: Kind,
    name: str,
    unit: str,
    help: str,
    *labels: str,
    values: tuple[str, ...] = (),
    services: tuple[str, ...] = (VERIFIER,),
) -> Metric:
    """A row that is one number a series."""
    return Metric(name, kind, unit, help, labels, values, services)


counter, gauge = partial(number, Kind.COUNTER), partial(number, Kind.GAUGE)


def seconds(
    name: str,
    help: str,
    *labels: str,
    bounds: tuple[float, ...] = REQUEST_SECONDS,
    services: tuple[str, ...] = (VERIFIER,),
    convention: str = "",
) -> Metric:
    """A row of durations."""
    return Metric(name, Kind.HISTOGRAM, "s", help, labels, (), services, convention, bounds)
