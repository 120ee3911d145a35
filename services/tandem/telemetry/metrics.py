"""Every metric of Tandem by name, with the services that emit it, and the numbers of this process.

Counters stand in the code, ratios in queries:

    acceptance rate     rate(tandem_spec_accepted_tokens_total) / rate(tandem_spec_draft_tokens_total)
    acceptance length   1 + rate(tandem_spec_accepted_tokens_total) / rate(tandem_spec_rounds_total)
    accepted at i       rate(tandem_spec_accepted_tokens_total{position="i"}) / rate(tandem_spec_rounds_total)
    prefix hits         rate(tandem_cached_tokens_total) / rate(tandem_prompt_tokens_total)
    price of the split  rate(tandem_exchange_seconds_sum) - rate(tandem_draft_seconds_sum)
"""

import bisect
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tandem.telemetry.metric import DRAFTER, GATEWAY, ROUND_SECONDS, VERIFIER, Kind, Metric, counter, gauge, seconds

RPC_SECONDS = seconds(
    "tandem_rpc_seconds",
    "Time that a server took for a call, by method and status code. Streams of requests are left out.",
    "rpc_method",
    "rpc_status_code",
    services=(GATEWAY, VERIFIER, DRAFTER),
    convention="rpc.server.call.duration",
)
HTTP_SECONDS = seconds(
    "tandem_http_seconds",
    "Time that a gateway took for a request over HTTP, by method, route and status: 499 where the client went away, "
    "and the error's for a stream that broke off.",
    "http_request_method",
    "http_route",
    "http_response_status_code",
    services=(GATEWAY,),
    convention="http.server.request.duration",
)
REQUEST_DURATION = seconds(
    "tandem_request_seconds",
    "From a request's arrival at the gateway to its last message.",
    services=(GATEWAY,),
    convention="gen_ai.server.request.duration",
)
TIME_TO_FIRST_TOKEN = seconds(
    "tandem_time_to_first_token_seconds",
    "From a request's arrival at the gateway, before its prompt is encoded, to its first token.",
    services=(GATEWAY,),
    convention="gen_ai.server.time_to_first_token",
)
TIME_PER_OUTPUT_TOKEN = seconds(
    "tandem_time_per_output_token_seconds",
    "Of a request: time from its first message with tokens to its last, over the tokens after the first message.",
    bounds=ROUND_SECONDS,
    services=(GATEWAY,),
    convention="gen_ai.server.time_per_output_token",
)
GATEWAY_STREAMS = gauge(
    "tandem_gateway_streams", "stream", "Requests that a gateway is answering now.", services=(GATEWAY,)
)

REQUESTS_FINISHED = counter(
    "tandem_requests_finished_total",
    "request",
    "Requests that left the engine, by reason: stop, length, cancelled, deadline, fault.",
    "reason",
    values=("stop", "length", "cancelled", "deadline", "fault"),
)
REQUESTS_CANCELLED = counter(
    "tandem_requests_cancelled_total",
    "request",
    "Requests whose caller went away, by what they were at: queue, prefill, decode.",
    "stage",
    values=("queue", "prefill", "decode"),
)
REQUESTS_REFUSED = counter(
    "tandem_requests_refused_total",
    "request",
    "Requests refused before they ran, by the error's reason.",
    "reason",
    values=("QUEUE_FULL", "KV_CACHE_FULL"),
)
QUEUED_REQUESTS = gauge("tandem_queued_requests", "request", "Requests that wait for their turn.")
QUEUE_SECONDS = seconds("tandem_queue_seconds", "From a request's arrival at the verifier to its first step.")
PREFILL_SECONDS = seconds("tandem_prefill_seconds", "From a request's first step to its first token.")
DECODE_SECONDS = seconds("tandem_decode_seconds", "From a request's first token to its end.")
RUNNING_SEQUENCES = gauge("tandem_running_sequences", "sequence", "Sequences that have a slot now.")

PROMPT_TOKENS = counter("tandem_prompt_tokens_total", "token", "Prompt tokens of admitted requests.")
CACHED_TOKENS = counter("tandem_cached_tokens_total", "token", "Prompt tokens found in the prefix cache.")
PREFIX_HITS = counter("tandem_prefix_hits_total", "request", "Requests whose prompt was begun in the prefix cache.")
OUTPUT_TOKENS = counter("tandem_output_tokens_total", "token", "Tokens emitted.")

STEPS = counter("tandem_steps_total", "step", "Forward passes of the target.")
PREEMPTIONS = counter(
    "tandem_preemptions_total", "sequence", "Sequences that gave up their KV blocks to be computed again later."
)
KV_BLOCKS = gauge("tandem_kv_blocks", "block", "KV blocks that a group has.", "group")
KV_FREE_BLOCKS = gauge("tandem_kv_free_blocks", "block", "KV blocks of a group that could be taken now.", "group")
KV_USE = gauge(
    "tandem_kv_use", "1", "Share of a group's KV blocks that sequences hold: 1 - free blocks / blocks.", "group"
)
KV_EVICTIONS = counter(
    "tandem_kv_evictions_total", "block", "KV blocks whose cached content made room for another sequence's."
)

SPEC_ROUNDS = counter(
    "tandem_spec_rounds_total", "round", "Verify rounds, counted for each sequence in them, with drafts or without."
)
SPEC_DRAFT_TOKENS = counter("tandem_spec_draft_tokens_total", "token", "Draft tokens that were judged.")
SPEC_ACCEPTED_TOKENS = counter(
    "tandem_spec_accepted_tokens_total",
    "token",
    "Draft tokens accepted, by their position in the draft, 0 first.",
    "position",
)
SPEC_FALLBACKS = counter(
    "tandem_spec_fallbacks_total",
    "round",
    "Rounds without the drafts they asked for, by reason: late, lost, stale, invalid.",
    "reason",
    values=("late", "lost", "stale", "invalid"),
)
VERIFY_SECONDS = seconds(
    "tandem_verify_seconds",
    "Forward pass of the target in a round where no prompt is computed; on a GPU, as the device took it.",
    bounds=ROUND_SECONDS,
)
DRAFT_SECONDS = seconds(
    "tandem_draft_seconds", "Time that a drafter took for a round.", bounds=ROUND_SECONDS, services=(DRAFTER,)
)
DRAFTER_TOKENS = counter(
    "tandem_drafter_tokens_total", "token", "Tokens that a drafter proposed, judged or not.", services=(DRAFTER,)
)
EXCHANGE_SECONDS = seconds(
    "tandem_exchange_seconds",
    "From asking another process for a round's drafts to its answer, the drafter's own time included.",
    bounds=ROUND_SECONDS,
)
DRAFTER_ATTACHED = gauge(
    "tandem_drafter_attached",
    "drafter",
    "1 while a drafter is attached, else 0, by what passes between: memory, cuda, tokens.",
    "carrier",
    values=("memory", "cuda", "tokens"),
)
DRAFTER_ATTACHMENTS = counter("tandem_drafter_attachments_total", "attachment", "Times that a drafter was attached.")

SERVING_VERIFIERS = gauge(
    "tandem_serving_verifiers", "verifier", "Verifiers that a gateway could send requests to.", services=(GATEWAY,)
)
RESUMED_STREAMS = counter(
    "tandem_resumed_streams_total",
    "stream",
    "Times that another verifier went on with a text, by the error that the one before left it with.",
    "reason",
    values=("NO_REPLICA", "ENGINE_FAULT", "DRAINING", "LOADING", "QUEUE_FULL", "KV_CACHE_FULL"),
    services=(GATEWAY,),
)

METRICS: tuple[Metric, ...] = tuple(row for row in globals().values() if isinstance(row, Metric))

_Labels = tuple[str, ...]  # in the order of Metric.labels


@dataclass
class Distribution:
    """What a histogram saw."""

    counts: list[int]  # in each bucket, one more than its metric has bounds
    total: float = 0.0  # of all values


class Metrics:
    """The numbers of one process. The service makes it and hands it down; any thread may use it."""

    def __init__(self, service: str = "") -> None:
        """Starts at zero.

        Args:
            service: whose they are; it counts what the table says that it counts, and nothing else. Empty: anything.
        """
        self.service = service
        self._lock = threading.Lock()
        self._values: defaultdict[Metric, dict[_Labels, float]] = defaultdict(dict)
        self._distributions: defaultdict[Metric, dict[_Labels, Distribution]] = defaultdict(dict)
        for metric in self.table if service else ():
            # A series that is born with its first event looks, to a rate, as if that had never happened.
            keys = [(value,) for value in metric.values] if metric.labels else [()]
            if metric.kind is Kind.HISTOGRAM:
                self._distributions[metric].update({key: _nothing(metric) for key in keys})
            else:
                self._values[metric].update(dict.fromkeys(keys, 0))

    @property
    def table(self) -> tuple[Metric, ...]:
        """The rows that this service emits."""
        return tuple(metric for metric in METRICS if self.service in metric.services) if self.service else METRICS

    def count(self, metric: Metric, amount: float = 1, **labels: object) -> None:
        """Adds to a counter."""
        assert metric.kind is Kind.COUNTER and amount >= 0, metric.name
        key = self._key(metric, labels)
        with self._lock:
            series = self._values[metric]
            series[key] = series.get(key, 0) + amount

    def set(self, metric: Metric, value: float, **labels: object) -> None:
        """Sets a gauge."""
        assert metric.kind is Kind.GAUGE, metric.name
        key = self._key(metric, labels)
        with self._lock:
            self._values[metric][key] = value

    def add(self, metric: Metric, change: float, **labels: object) -> None:
        """Changes a gauge that counts what there is now."""
        assert metric.kind is Kind.GAUGE, metric.name
        key = self._key(metric, labels)
        with self._lock:
            series = self._values[metric]
            series[key] = series.get(key, 0) + change

    def observe(self, metric: Metric, value: float, **labels: object) -> None:
        """Adds a value to a histogram."""
        assert metric.kind is Kind.HISTOGRAM, metric.name
        key = self._key(metric, labels)
        with self._lock:
            series = self._distributions[metric]
            seen = series.get(key)
            if seen is None:
                seen = series[key] = _nothing(metric)
            seen.counts[bisect.bisect_left(metric.bounds, value)] += 1
            seen.total += value

    def value(self, metric: Metric, **labels: object) -> float:
        """The number under `labels`; what is left out is summed over. 0 where nothing was counted."""
        assert labels.keys() <= set(metric.labels), f"{metric.name} has no label {labels.keys() - set(metric.labels)}"
        wanted = {metric.labels.index(name): str(value) for name, value in labels.items()}
        with self._lock:
            series = self._values.get(metric, {})
            return sum(
                number for key, number in series.items() if all(key[place] == text for place, text in wanted.items())
            )

    def distributions(self) -> Iterator[tuple[Metric, dict[str, str], Distribution]]:
        """Every histogram as of now: metric, labels, what it saw."""
        with self._lock:
            copied = [
                (metric, key, Distribution(list(seen.counts), seen.total))
                for metric, series in self._distributions.items()
                for key, seen in series.items()
            ]
        for metric, key, seen in copied:
            yield metric, dict(zip(metric.labels, key, strict=True)), seen

    def snapshot(self) -> Iterator[tuple[Metric, dict[str, str], float]]:
        """Every counter and gauge as of now: metric, labels, value."""
        with self._lock:
            copied = {metric: dict(series) for metric, series in self._values.items()}
        for metric, series in copied.items():
            for key, number in series.items():
                yield metric, dict(zip(metric.labels, key, strict=True)), number

    def _key(self, metric: Metric, labels: dict[str, object]) -> _Labels:
        assert not self.service or self.service in metric.services, f"{metric.name} is none of {self.service}'s"
        assert labels.keys() == set(metric.labels), f"{metric.name} wants labels {metric.labels}, not {tuple(labels)}"
        return tuple(str(labels[name]) for name in metric.labels)


def _nothing(metric: Metric) -> Distribution:
    return Distribution([0] * (len(metric.bounds) + 1))
