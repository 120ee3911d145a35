"""What a gateway tells of each request: a span by the GenAI conventions, and how long its reader waited."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from opentelemetry import trace
from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from tandem.core.errors import TandemError
from tandem.gateway.generation import Event
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.telemetry.tracing import PROVIDER, TRACER, fail
from tandem.v1 import types_pb2

_SAMPLING = ("temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty")


class RequestWatch:
    """Watches requests, all of a gateway's."""

    def __init__(self, metrics: Metrics, has_content: bool) -> None:
        """Counts in `metrics`; `has_content`: spans hold prompts and answers."""
        self._metrics = metrics
        self._has_content = has_content

    async def watched(
        self, spec: types_pb2.GenerationSpec, events: AsyncGenerator[Event, None]
    ) -> AsyncGenerator[Event, None]:
        """The same events. Raises what `events` raises."""
        waits = _Waits(self._metrics)
        is_chat = spec.WhichOneof("prompt") == "conversation"
        operation = "chat" if is_chat else "text_completion"
        span = TRACER.start_span(f"{operation} {spec.model}".rstrip(), attributes=_request(spec, operation))
        answer: list[str] = []
        self._metrics.add(names.GATEWAY_STREAMS, 1)
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                async with aclosing(events):
                    async for event in events:
                        waits.take(event)
                        if span.is_recording():
                            _describe(span, operation, event)
                            if self._has_content and isinstance(event, types_pb2.Delta):
                                answer.append(event.text)
                        yield event
        except TandemError as error:
            fail(span, error.reason)
            raise
        finally:
            if self._has_content and span.is_recording():
                span.set_attribute("gen_ai.input.messages", str(getattr(spec, spec.WhichOneof("prompt") or "text")))
                span.set_attribute("gen_ai.output.messages", "".join(answer))
            self._metrics.add(names.GATEWAY_STREAMS, -1)
            waits.end()
            span.end()


class _Waits:
    """The times of one request that its reader notices."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._arrived_at = time.perf_counter()
        self._first_at = self._last_at = 0.0
        self._num_after_first = 0

    def take(self, event: Event) -> None:
        """A message goes out."""
        if not isinstance(event, types_pb2.Delta) or not event.num_tokens:
            return
        self._last_at = time.perf_counter()
        if self._first_at:
            self._num_after_first += event.num_tokens
        else:
            self._first_at = self._last_at
            self._metrics.observe(names.TIME_TO_FIRST_TOKEN, self._first_at - self._arrived_at)

    def end(self) -> None:
        """It is over."""
        self._metrics.observe(names.REQUEST_DURATION, time.perf_counter() - self._arrived_at)
        if self._num_after_first:
            seconds = self._last_at - self._first_at
            self._metrics.observe(names.TIME_PER_OUTPUT_TOKEN, seconds / self._num_after_first)


def _request(spec: types_pb2.GenerationSpec, operation: str) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.output.type": "json" if spec.HasField("output_format") else "text",
    }
    if spec.model:
        attributes["gen_ai.request.model"] = spec.model
    if spec.stopping.HasField("max_tokens"):
        attributes["gen_ai.request.max_tokens"] = spec.stopping.max_tokens
    given = {field.name: value for field, value in spec.sampling.ListFields()}
    return attributes | {f"gen_ai.request.{name}": given[name] for name in _SAMPLING if name in given}


def _describe(span: Span, operation: str, event: Event) -> None:
    match event:
        case types_pb2.Started():
            span.update_name(f"{operation} {event.model}")
            span.set_attribute("gen_ai.response.id", event.request_id)
            span.set_attribute("gen_ai.response.model", event.model)
            span.set_attribute("gen_ai.usage.input_tokens", event.num_prompt_tokens)
            span.set_attribute("gen_ai.usage.cache_read.input_tokens", event.num_cached_tokens)
        case types_pb2.Finished():
            reason = types_pb2.FinishReason.Name(event.reason).removeprefix("FINISH_REASON_").lower()
            span.set_attribute("gen_ai.response.finish_reasons", [reason])
            span.set_attribute("gen_ai.usage.output_tokens", event.usage.num_output_tokens)
            span.set_attribute("tandem.rounds", event.speculation.num_rounds)
            span.set_attribute("tandem.draft_tokens", event.speculation.num_draft_tokens)
            span.set_attribute("tandem.accepted_tokens", event.speculation.num_accepted_tokens)
