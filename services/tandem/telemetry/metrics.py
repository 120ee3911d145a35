"""Every metric of Tandem by name, and the counts of this process.

Counters stand in the code, ratios in queries:

    acceptance rate    rate(tandem_spec_accepted_tokens_total) / rate(tandem_spec_draft_tokens_total)
    acceptance length  1 + rate(tandem_spec_accepted_tokens_total) / rate(tandem_spec_rounds_total)
"""

import enum
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass


class Kind(enum.Enum):
    """How a metric's number behaves."""

    COUNTER = "counter"  # only rises
    GAUGE = "gauge"  # the state now


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    name: str
    kind: Kind
    unit: str  # what one of it is
    help: str
    labels: tuple[str, ...] = ()


def _counter(name: str, unit: str, help: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, unit, help, labels)


def _gauge(name: str, unit: str, help: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, unit, help, labels)


REQUESTS_FINISHED = _counter(
    "tandem_requests_finished_total",
    "request",
    "Requests that left the engine, by reason: stop, length, cancelled, deadline, fault.",
    "reason",
)
REQUESTS_REFUSED = _counter(
    "tandem_requests_refused_total", "request", "Requests refused before they ran, by the error's reason.", "reason"
)
QUEUED_REQUESTS = _gauge("tandem_queued_requests", "request", "Requests that wait for their turn.")
RUNNING_SEQUENCES = _gauge("tandem_running_sequences", "sequence", "Sequences that have a slot now.")

PROMPT_TOKENS = _counter("tandem_prompt_tokens_total", "token", "Prompt tokens of admitted requests.")
CACHED_TOKENS = _counter("tandem_cached_tokens_total", "token", "Prompt tokens found in the prefix cache.")
OUTPUT_TOKENS = _counter("tandem_output_tokens_total", "token", "Tokens emitted.")

STEPS = _counter("tandem_steps_total", "step", "Forward passes of the target.")
PREEMPTIONS = _counter(
    "tandem_preemptions_total", "sequence", "Sequences that gave up their KV blocks to be computed again later."
)
KV_BLOCKS = _gauge("tandem_kv_blocks", "block", "KV blocks that a group has.", "group")
KV_FREE_BLOCKS = _gauge("tandem_kv_free_blocks", "block", "KV blocks of a group that could be taken now.", "group")
KV_EVICTIONS = _counter(
    "tandem_kv_evictions_total", "block", "KV blocks whose cached content made room for another sequence's."
)

SPEC_ROUNDS = _counter(
    "tandem_spec_rounds_total", "round", "Verify rounds, counted for each sequence in them, with drafts or without."
)
SPEC_DRAFT_TOKENS = _counter("tandem_spec_draft_tokens_total", "token", "Draft tokens that were judged.")
SPEC_ACCEPTED_TOKENS = _counter(
    "tandem_spec_accepted_tokens_total",
    "token",
    "Draft tokens accepted, by their position in the draft, 0 first.",
    "position",
)
SPEC_FALLBACKS = _counter(
    "tandem_spec_fallbacks_total",
    "round",
    "Rounds without the drafts they asked for, by reason: late, lost, stale, invalid.",
    "reason",
)
DRAFTER_ATTACHED = _gauge(
    "tandem_drafter_attached",
    "drafter",
    "1 while a drafter is attached, else 0, by what passes between: memory, cuda, tokens.",
    "carrier",
)
DRAFTER_ATTACHMENTS = _counter("tandem_drafter_attachments_total", "attachment", "Times that a drafter was attached.")

SERVING_VERIFIERS = _gauge("tandem_serving_verifiers", "verifier", "Verifiers that a gateway could send requests to.")
RESUMED_STREAMS = _counter(
    "tandem_resumed_streams_total",
    "stream",
    "Times that another verifier went on with a text, by the error that the one before left it with.",
    "reason",
)

METRICS: tuple[Metric, ...] = tuple(row for row in globals().values() if isinstance(row, Metric))

_Labels = tuple[str, ...]  # in the order of Metric.labels


class Metrics:
    """The numbers of one process. The service makes it and hands it down; any thread may use it."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._lock = threading.Lock()
        self._values: defaultdict[Metric, dict[_Labels, float]] = defaultdict(dict)

    def count(self, metric: Metric, amount: float = 1, **labels: object) -> None:
        """Adds to a counter."""
        assert metric.kind is Kind.COUNTER and amount >= 0, metric.name
        key = _key(metric, labels)
        with self._lock:
            series = self._values[metric]
            series[key] = series.get(key, 0) + amount

    def set(self, metric: Metric, value: float, **labels: object) -> None:
        """Sets a gauge."""
        assert metric.kind is Kind.GAUGE, metric.name
        key = _key(metric, labels)
        with self._lock:
            self._values[metric][key] = value

    def value(self, metric: Metric, **labels: object) -> float:
        """The number under `labels`; what is left out is summed over. 0 where nothing was counted."""
        assert labels.keys() <= set(metric.labels), f"{metric.name} has no label {labels.keys() - set(metric.labels)}"
        wanted = {metric.labels.index(name): str(value) for name, value in labels.items()}
        with self._lock:
            series = self._values.get(metric, {})
            return sum(
                number for key, number in series.items() if all(key[place] == text for place, text in wanted.items())
            )

    def snapshot(self) -> Iterator[tuple[Metric, dict[str, str], float]]:
        """Every number as of now: metric, labels, value."""
        with self._lock:
            copied = {metric: dict(series) for metric, series in self._values.items()}
        for metric, series in copied.items():
            for key, number in series.items():
                yield metric, dict(zip(metric.labels, key, strict=True)), number


def _key(metric: Metric, labels: dict[str, object]) -> _Labels:
    assert labels.keys() == set(metric.labels), f"{metric.name} wants labels {metric.labels}, not {tuple(labels)}"
    return tuple(str(labels[name]) for name in metric.labels)
