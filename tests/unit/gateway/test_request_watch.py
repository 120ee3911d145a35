import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tandem.core.errors import QueueFull
from tandem.gateway import request_watch
from tandem.gateway.request_watch import RequestWatch
from tandem.telemetry import metrics as names
from tandem.telemetry.metric import GATEWAY
from tandem.telemetry.metrics import Metrics
from tandem.v1 import types_pb2

SPEC = types_pb2.GenerationSpec(text="a secret", sampling={"temperature": 0.5}, stopping={"max_tokens": 7})


@pytest.fixture
def spans(monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(request_watch, "TRACER", provider.get_tracer("test"))
    return exporter.get_finished_spans


async def events():
    yield types_pb2.Started(model="m", request_id="r", num_prompt_tokens=3)
    yield types_pb2.Delta(text="an an", num_tokens=2)
    yield types_pb2.Delta(text="swer", num_tokens=2)
    yield types_pb2.Finished(reason=types_pb2.FINISH_REASON_LENGTH, usage={"num_output_tokens": 4})


async def refused():
    raise QueueFull("full")
    yield


async def test_a_span_by_the_conventions_and_without_content(spans):
    metrics = Metrics(GATEWAY)
    assert len([event async for event in RequestWatch(metrics, has_content=False).watched(SPEC, events())]) == 4
    (span,) = spans()
    assert span.name == "text_completion m"
    wanted = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.id": "r",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
    }
    assert wanted.items() <= dict(span.attributes).items()
    assert "secret" not in span.to_json() and "swer" not in span.to_json()
    seen = {metric: sum(one.counts) for metric, _, one in metrics.distributions()}
    assert all(seen[m] == 1 for m in (names.TIME_TO_FIRST_TOKEN, names.TIME_PER_OUTPUT_TOKEN, names.REQUEST_DURATION))


async def test_content_when_asked_for(spans):
    async for _ in RequestWatch(Metrics(GATEWAY), has_content=True).watched(SPEC, events()):
        pass
    assert spans()[0].attributes["gen_ai.input.messages"] == "a secret"
    assert spans()[0].attributes["gen_ai.output.messages"] == "an answer"


async def test_a_refusal_is_told_by_its_reason(spans):
    metrics = Metrics(GATEWAY)
    with pytest.raises(QueueFull):
        await anext(RequestWatch(metrics, has_content=False).watched(SPEC, refused()))
    assert spans()[0].attributes["error.type"] == "QUEUE_FULL" and not spans()[0].status.is_ok
    assert metrics.value(names.GATEWAY_STREAMS) == 0
