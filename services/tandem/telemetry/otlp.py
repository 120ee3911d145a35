"""Traces and metrics to a collector, by OTLP over gRPC, as the standard `OTEL_*` variables say.

Nothing is sent, and nothing of it is even loaded, unless an endpoint is named. Sending is done by threads of its own; a
collector that is slow or gone costs what was to be sent to it.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tandem.telemetry.metric import Kind, Metric
from tandem.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource

logger = logging.getLogger(__name__)

SCOPE = "tandem"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
DEFAULT_INTERVAL_MS = 60_000.0
# What was not sent yet when the process ends.
LAST_WORDS_SECONDS = 2.0


def is_exported(signal: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `TRACES` or `METRICS` are sent."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get(f"OTEL_{signal}_EXPORTER", "otlp") != "otlp":
        return False
    return bool(environment.get(ENDPOINT) or environment.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))


@contextmanager
def exported_traces(service: str) -> Iterator[None]:
    """Sends the spans of this process for as long as it lasts. Once a process.

    Args:
        service: `tandem-SERVICE` is its name where `OTEL_SERVICE_NAME` gives no other.
    """
    if not is_exported("TRACES"):
        yield
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # A collector that is gone would be tried again and again.
        ending = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(LAST_WORDS_SECONDS)


@contextmanager
def exported_metrics(metrics: Metrics) -> Iterator[None]:
    """Sends the numbers every `OTEL_METRIC_EXPORT_INTERVAL` milliseconds, and once more at the end."""
    if not is_exported("METRICS"):
        yield
        return
    has_ended = threading.Event()
    sending = threading.Thread(target=_send, args=(metrics, has_ended), name="metrics", daemon=True)
    sending.start()
    try:
        yield
    finally:
        has_ended.set()


def _send(metrics: Metrics, has_ended: threading.Event) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    exporter, resource, started_at = OTLPMetricExporter(), _resource(metrics.service), time.time_ns()
    interval_ms = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", DEFAULT_INTERVAL_MS))
    is_last = False
    while not is_last:
        is_last = has_ended.wait(interval_ms / 1000)
        try:
            exporter.export(metrics_data(metrics, resource, started_at))
        except Exception:  # the next ones may arrive; numbers only ever rise
            logger.exception("metrics were not sent")


def metrics_data(metrics: Metrics, resource: "Resource", started_at: int) -> "MetricsData":
    """Every number as of now, as the SDK's exporters take them; sums since `started_at`, nanoseconds since 1970."""
    from opentelemetry.sdk.metrics import export as sdk
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    now = time.time_ns()
    points: dict[Metric, list[sdk.NumberDataPoint]] = {}
    spread: dict[Metric, list[sdk.HistogramDataPoint]] = {}
    for metric, labels, number in metrics.snapshot():
        points.setdefault(metric, []).append(sdk.NumberDataPoint(_attributes(labels), started_at, now, number))
    for metric, labels, seen in metrics.distributions():
        spread.setdefault(metric, []).append(
            sdk.HistogramDataPoint(
                attributes=_attributes(labels),
                start_time_unix_nano=started_at,
                time_unix_nano=now,
                count=sum(seen.counts),
                sum=seen.total,
                bucket_counts=seen.counts,
                explicit_bounds=metric.bounds,
                # Optional on the wire, and not kept.
                min=None,  # type: ignore[arg-type]
                max=None,  # type: ignore[arg-type]
            )
        )
    cumulative = sdk.AggregationTemporality.CUMULATIVE
    rows: list[sdk.Metric] = []
    for metric, numbers in points.items():
        data = sdk.Gauge(numbers) if metric.kind is Kind.GAUGE else sdk.Sum(numbers, cumulative, is_monotonic=True)
        rows.append(sdk.Metric(metric.otlp_name, metric.help, _unit(metric), data))
    for metric, seen_points in spread.items():
        rows.append(sdk.Metric(metric.otlp_name, metric.help, "s", sdk.Histogram(seen_points, cumulative)))
    scope = sdk.ScopeMetrics(InstrumentationScope(SCOPE), rows, schema_url="")
    return sdk.MetricsData([sdk.ResourceMetrics(resource, [scope], schema_url="")])


def _resource(service: str) -> "Resource":
    from opentelemetry.sdk.resources import Resource

    name = os.environ.get("OTEL_SERVICE_NAME") or f"tandem-{service}"
    return Resource.create({"service.name": name, "service.namespace": "tandem"})


_CONVENTIONAL = {
    "rpc_method": "rpc.method",
    "rpc_status_code": "rpc.status_code",
    "http_request_method": "http.request.method",
    "http_route": "http.route",
    "http_response_status_code": "http.response.status_code",
}


def _attributes(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels as attributes, those of the conventions by their names there."""
    return {_CONVENTIONAL.get(label, label): value for label, value in labels.items()}


def _unit(metric: Metric) -> str:
    return metric.unit if metric.unit == "1" else f"{{{metric.unit}}}"
