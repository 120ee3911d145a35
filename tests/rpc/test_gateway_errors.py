"""Every row of the error table that a gateway whose verifier serves can give, as a client sees it."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tandem.core.errors import EngineFault, InvalidRequest, KvCacheFull, QueueFull
from tandem.rpc.errors import RETRY_PUSHBACK_KEY
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import model_service_pb2, types_pb2
from tests.rpc.calls import refusal, refused, spec
from tests.rpc.fake_verifier import finished, play, started, verified

CODES = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING


BAD_FIELDS = [
    (types_pb2.GenerationSpec(), "spec.prompt"),
    (types_pb2.GenerationSpec(token_ids={}), "spec.token_ids"),
    (types_pb2.GenerationSpec(conversation={}), "spec.conversation.messages"),
    (types_pb2.GenerationSpec(conversation={"messages": [{"text": "x"}]}), "spec.conversation.messages[0].role"),
    (types_pb2.GenerationSpec(conversation={"messages": [{"role": 99}]}), "spec.conversation.messages[0].role"),
    (types_pb2.GenerationSpec(conversation={"messages": [{"role": 2}, {"role": 1}]}), "spec.conversation"),
    (spec(text="the fox " * 300), "spec.text"),
    (types_pb2.GenerationSpec(token_ids={"ids": [70] * 256}), "spec.token_ids"),
    (spec(text="x" * 3_000_000), "spec.text"),
    (spec(request_id="x" * 129), "spec.request_id"),
    (spec(request_id="two\nlines"), "spec.request_id"),
    (spec(cache_salt="x" * 129), "spec.cache_salt"),
    (spec(stopping={"stop": ["x"] * 17}), "spec.stopping.stop"),
    (spec(stopping={"stop": ["x", ""]}), "spec.stopping.stop[1]"),
    (spec(stopping={"stop": ["x" * 257]}), "spec.stopping.stop[0]"),
    (spec(stopping={"max_tokens": 8193}), "spec.stopping.max_tokens"),
]


@pytest.mark.parametrize(("given", "field"), BAD_FIELDS, ids=[field for _, field in BAD_FIELDS])
async def test_bad_fields(client, fake, given, field):
    error, details = await refused(client, given)
    assert (error.code(), details["ErrorInfo"].reason) == (CODES.INVALID_ARGUMENT, "INVALID_REQUEST")
    violation = details["BadRequest"].field_violations[0]
    assert violation.field == field and violation.description
    assert not fake.requests, "the verifier is not bothered"


async def test_what_the_verifier_refuses_keeps_its_details(client, fake):
    async def script(request):
        raise InvalidRequest("spec.sampling.top_p", "must be above 0 and at most 1")
        yield

    fake.script = script
    error, details = await refused(client, spec())
    assert error.code() is CODES.INVALID_ARGUMENT
    assert details["BadRequest"].field_violations[0].field == "spec.sampling.top_p"


async def test_unknown_model(client):
    error, details = await refused(client, spec(model="another"))
    assert (error.code(), details["ErrorInfo"].reason) == (CODES.NOT_FOUND, "MODEL_NOT_FOUND")
    error, _ = await refusal(client.models.GetModel(model_service_pb2.GetModelRequest(name="another")))
    assert error.code() is CODES.NOT_FOUND
    error, _ = await refusal(client.generation.CountTokens(pb.CountTokensRequest(spec=spec(model="another"))))
    assert error.code() is CODES.NOT_FOUND


@pytest.mark.parametrize(("kind", "reason"), [(QueueFull, "QUEUE_FULL"), (KvCacheFull, "KV_CACHE_FULL")])
async def test_full_passes_through_with_its_pushback(client, fake, kind, reason):
    async def script(request):
        raise kind("full", retry_after_seconds=2.5)
        yield

    fake.script = script
    error, details = await refused(client, spec())
    assert (error.code(), details["ErrorInfo"].reason) == (CODES.RESOURCE_EXHAUSTED, reason)
    assert error.trailing_metadata()[RETRY_PUSHBACK_KEY] == "2500"
    assert details["RetryInfo"].retry_delay.ToMilliseconds() == 2500


async def test_a_refused_admission_sends_no_headers_so_that_grpc_retries_it(client, fake):
    num_tries = 0

    async def script(request):
        nonlocal num_tries
        num_tries += 1
        if num_tries < 3:
            raise QueueFull("full", retry_after_seconds=0.01)
        yield started()
        yield finished()

    fake.script = script
    config = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.001s",
        "maxBackoff": "0.001s", "backoffMultiplier": 1, "retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}}]}"""
    async with grpc.aio.insecure_channel(client.address, options=[("grpc.service_config", config)]) as channel:
        stub = type(client.generation)(channel)
        events = [event async for event in stub.StreamGenerate(pb.StreamGenerateRequest(spec=spec()))]
    assert num_tries == 3 and len(events) == 2


async def test_headers_wait_for_the_verifiers_admission(client, fake):
    admit = asyncio.Event()

    async def script(request):
        await admit.wait()
        yield started()
        yield finished()

    fake.script = script
    call = client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec()))
    headers = asyncio.create_task(call.initial_metadata())
    await asyncio.sleep(0.1)
    assert not headers.done()
    admit.set()
    async with asyncio.timeout(1):
        await headers


@pytest.mark.parametrize("fault", [EngineFault("/secret/path"), RuntimeError("/secret/path")])
async def test_engine_faults_show_a_request_id_and_nothing_else(client, fake, fault):
    async def script(request):
        yield started()
        raise fault

    fake.script = script
    error, details = await refused(client, spec(request_id="r-1"))
    assert (error.code(), details["ErrorInfo"].reason) == (CODES.INTERNAL, "ENGINE_FAULT")
    assert details["RequestInfo"].request_id == "r-1" and "r-1" in error.details()
    assert "secret" not in repr(error) + repr(error.trailing_metadata())


async def test_faults_of_the_gateway_itself_leak_nothing(client, fake, caplog):
    """A round that accepts more than was drafted trips an assertion inside the gateway."""
    fake.script = lambda request: play(started(), verified([70], num_drafted_tokens=5, num_draft_tokens=1))
    error, details = await refused(client, spec(request_id="r-1"))
    assert error.code() is CODES.INTERNAL and details["RequestInfo"].request_id == "r-1"
    assert "assert" not in repr(error).lower()
    assert "request r-1 failed" in caplog.text


async def test_a_verifier_that_just_stops_talking_is_a_fault(client, fake):
    fake.script = lambda request: play(started())
    error, _ = await refused(client, spec(request_id="r-1"))
    assert error.code() is CODES.INTERNAL and "r-1" in error.details()


async def test_a_conversation_without_a_template(open_client, verifier, checkpoint, tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    async with open_client(tokenizer=str(folder)) as client:
        await client.wait_for_health(SERVING)
        conversation = types_pb2.Conversation(messages=[{"role": types_pb2.ROLE_USER, "text": "x"}])
        error, details = await refused(client, types_pb2.GenerationSpec(conversation=conversation))
    assert error.code() is CODES.INVALID_ARGUMENT
    assert details["BadRequest"].field_violations[0].field == "spec.conversation"
