"""Spans: W3C context in and out, and names of attributes by OpenTelemetry's conventions.

Only OpenTelemetry's API is used here. Without `otlp.exported_traces` around it a span is none, and a context that came
from outside is still handed on.
"""

import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

TRACER = trace.get_tracer("tandem")
PROVIDER = "tandem"  # `gen_ai.provider.name`
TRACEPARENT = "traceparent"
_W3C = TraceContextTextMapPropagator()


def context_from(carrier: Mapping[str, str]) -> Context:
    """The caller's context out of headers in lower case; an empty one where there is none, or nothing that is valid."""
    return _W3C.extract(carrier, Context())


def headers_of(span: Span) -> dict[str, str]:
    """Headers that make `span` the parent of what the callee does; empty where there is no trace."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier


def traceparent(span: Span) -> str:
    """`span` as one short text, for messages that carry it; empty where nobody records it."""
    return headers_of(span).get(TRACEPARENT, "") if span.get_span_context().trace_flags.sampled else ""


def current_trace() -> tuple[str, str]:
    """Ids of the trace and the span that this task works in, as hexadecimal digits; empty outside of any."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return "", ""
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


def fail(span: Span, kind: str) -> None:
    """Marks a span as failed; `kind` is a status code or a reason, never a message."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


class Clock:
    """Turns times of the monotonic clock, in seconds, into those of spans, in nanoseconds since 1970."""

    def __init__(self) -> None:
        """Looks at both clocks once, so that spans of one request fit together."""
        self._offset = time.time_ns() - time.monotonic_ns()

    def nanoseconds(self, at: float) -> int:
        """The same moment on the other clock."""
        return int(at * 1e9) + self._offset


def record_phase(
    name: str, parent: Context, clock: Clock, start: float, end: float, attributes: Mapping[str, AttributeValue]
) -> Span:
    """A span of something that is over, between two times of the monotonic clock; returned for its events.

    Args:
        name: of the phase.
        parent: context of the span it belongs to.
        clock: of the request.
        start: seconds.
        end: seconds.
        attributes: what is known of it.
    """
    span = TRACER.start_span(
        name, parent, kind=SpanKind.INTERNAL, attributes=attributes, start_time=clock.nanoseconds(start)
    )
    span.end(clock.nanoseconds(end))
    return span
