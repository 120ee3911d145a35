"""Every row of the error table, as a client sees it."""

import asyncio
import os
import sys

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2_grpc

from tandem.core.errors import EngineFault, InvalidRequest, KvCacheFull, QueueFull
from tandem.rpc.errors import RETRY_PUSHBACK_KEY, STATUS_DETAILS_KEY
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import model_service_pb2, types_pb2
from tests.rpc.fake_verifier import FakeVerifier, finished, play, serving, started, verified

CODES = grpc.StatusCode
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def spec(**fields):
    return types_pb2.GenerationSpec(**{"text": "the fox", **fields})


async def refusal(call):
    """The status of a refused call, and its details by name."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if isinstance(call, grpc.aio.UnaryStreamCall):
            async for _ in call:
                pass
        else:
            await call
    error = caught.value
    details = {}
    for packed in status_pb2.Status.FromString(error.trailing_metadata()[STATUS_DETAILS_KEY]).details:
        name = packed.type_url.rpartition(".")[2]
        details[name] = getattr(error_details_pb2, name)()
        packed.Unpack(details[name])
    assert details["ErrorInfo"].domain == "tandem"
    return error, details


async def refused(client, given, **options):
    """Both kinds of generation refuse alike; returns the stream's refusal."""
    error, details = await refusal(client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=given), **options))
    unary, _ = await refusal(client.generation.Generate(pb.GenerateRequest(spec=given), **options))
    assert unary.code() is error.code()
    return error, details


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


async def test_no_replica(open_client):
    async with open_client() as client:
        error, details = await refused(client, spec())
        assert (error.code(), details["ErrorInfo"].reason) == (CODES.UNAVAILABLE, "NO_REPLICA")
        assert details["RetryInfo"].retry_delay.ToMilliseconds() == 1000
        assert error.trailing_metadata()[RETRY_PUSHBACK_KEY] == "1000"
        for call in (
            client.models.ListModels(model_service_pb2.ListModelsRequest()),
            client.generation.CountTokens(pb.CountTokensRequest(spec=spec())),
        ):
            assert (await refusal(call))[0].code() is CODES.UNAVAILABLE
        assert (await client.health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING


async def test_loading_then_serving(open_client, fake, verifier_address):
    async with serving(fake, verifier_address, is_serving=False) as verifier, open_client() as client:
        for _ in range(200):
            if (await refused(client, spec()))[1]["ErrorInfo"].reason != "NO_REPLICA":
                break
            await asyncio.sleep(0.01)
        error, details = await refused(client, spec())
        assert (error.code(), details["ErrorInfo"].reason) == (CODES.UNAVAILABLE, "LOADING")
        assert (await client.health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        verifier.set_serving(True)
        async with asyncio.timeout(2):
            await client.wait_for_health(SERVING)
        await client.generation.Generate(pb.GenerateRequest(spec=spec()))
        verifier.set_serving(False)
        async with asyncio.timeout(2):
            await client.wait_for_health(NOT_SERVING)


async def test_draining(client, fake):
    go_on = asyncio.Event()

    async def script(request):
        yield started()
        await go_on.wait()
        yield finished()

    fake.script = script
    running = client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec()))
    await running.read()
    stopping = asyncio.create_task(client.server.stop(5))
    await asyncio.sleep(0.02)
    error, details = await refused(client, spec())
    assert (error.code(), details["ErrorInfo"].reason) == (CODES.UNAVAILABLE, "DRAINING")
    assert "RetryInfo" in details and RETRY_PUSHBACK_KEY in error.trailing_metadata()
    assert (await client.health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
    go_on.set()
    assert (await running.read()).HasField("finished")
    await asyncio.wait_for(stopping, 2)


async def test_a_verifier_that_dies_in_mid_stream_and_comes_back(open_client, fake, verifier_address):
    async def script(request):
        yield started()
        yield verified([70])
        await asyncio.Event().wait()

    fake.script = script
    async with open_client() as client:
        async with serving(fake, verifier_address) as verifier:
            await client.wait_for_health(SERVING)
            call = client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec()))
            events = aiter(call)
            assert (await anext(events)).HasField("started")
            await verifier.stop(0)
            error, details = await refusal(call)
            assert (error.code(), details["ErrorInfo"].reason) == (CODES.UNAVAILABLE, "NO_REPLICA")
            assert "RetryInfo" in details
            async with asyncio.timeout(2):
                await client.wait_for_health(NOT_SERVING)
        error, details = await refused(client, spec())
        assert (error.code(), details["ErrorInfo"].reason) == (CODES.UNAVAILABLE, "NO_REPLICA")
        again = FakeVerifier()
        async with serving(again, verifier_address):
            async with asyncio.timeout(4):
                await client.wait_for_health(SERVING)
            await client.generation.Generate(pb.GenerateRequest(spec=spec()))
            assert len(again.requests) == 1


VERIFIER_PROCESS = """
import asyncio, sys
from tests.rpc.fake_verifier import FakeVerifier, serving, started

async def script(request):
    yield started()
    await asyncio.Event().wait()

async def main():
    fake = FakeVerifier()
    fake.script = script
    async with serving(fake, sys.argv[1]):
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_verifier_that_is_killed_and_comes_back_to_the_same_socket(open_client, fake, verifier_address):
    """`kill -9` gives a verifier no time to say NOT_SERVING, nor to remove its socket."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VERIFIER_PROCESS, verifier_address, env=environment
    )
    try:
        async with open_client() as client:
            async with asyncio.timeout(10):
                await client.wait_for_health(SERVING)
            call = client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec()))
            events = aiter(call)
            assert (await anext(events)).HasField("started")
            process.kill()
            error, details = await refusal(call)
            assert (error.code(), details["ErrorInfo"].reason) == (CODES.UNAVAILABLE, "NO_REPLICA")
            async with asyncio.timeout(2):
                await client.wait_for_health(NOT_SERVING)
            error, details = await refusal(client.generation.CountTokens(pb.CountTokensRequest(spec=spec())))
            assert (error.code(), details["ErrorInfo"].reason) == (CODES.UNAVAILABLE, "NO_REPLICA")
            await process.wait()  # its connections may have ended before the socket that it listened on
            async with serving(fake, verifier_address):
                async with asyncio.timeout(4):
                    await client.wait_for_health(SERVING)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


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


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# two, for rotation\nold-key\nnew-key\n")
    return path


async def test_credentials(open_client, verifier, keys_file):
    async with open_client(api_keys_file=str(keys_file)) as client:
        await client.wait_for_health(SERVING)  # health needs no key
        for metadata in (
            None,
            [("authorization", "Bearer wrong")],
            [("authorization", "Bearer ")],
            [("authorization", "Basic new-key")],
            [("authorization", "new-key")],
            [("authorization", "Bearer new-key"), ("authorization", "Bearer new-key")],
        ):
            error, details = await refused(client, spec(), metadata=metadata)
            assert (error.code(), details["ErrorInfo"].reason) == (CODES.UNAUTHENTICATED, "INVALID_API_KEY")
            error, _ = await refusal(client.models.ListModels(model_service_pb2.ListModelsRequest(), metadata=metadata))
            assert error.code() is CODES.UNAUTHENTICATED
        for key in ("Bearer old-key", "bearer new-key"):
            await client.generation.Generate(pb.GenerateRequest(spec=spec()), metadata=[("authorization", key)])


async def test_every_method_but_health_needs_a_key(open_client, verifier, keys_file):
    """Closed by default: methods nobody thought of are refused before they are even looked up."""
    async with open_client(api_keys_file=str(keys_file)) as client:
        reflection = reflection_pb2_grpc.ServerReflectionStub(client.channel).ServerReflectionInfo()
        assert await reflection.code() is CODES.UNAUTHENTICATED  # before anything is asked
        for method in ("/tandem.v1.NoService/Method", "/grpc.health.v1.HealthX/Check", "grpc.health.v1.Health/Check"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.channel.unary_unary(method)(b"")
            assert caught.value.code() in (CODES.UNAUTHENTICATED, CODES.UNIMPLEMENTED)
            assert method != "/tandem.v1.NoService/Method" or caught.value.code() is CODES.UNAUTHENTICATED


async def test_rate_limit_is_per_key(open_client, verifier, keys_file):
    async with open_client(api_keys_file=str(keys_file), requests_per_minute=2) as client:
        await client.wait_for_health(SERVING)
        old, new = ([("authorization", f"Bearer {key}")] for key in ("old-key", "new-key"))
        request = pb.GenerateRequest(spec=spec())
        for _ in range(2):
            await client.generation.Generate(request, metadata=old)
        error, details = await refusal(client.generation.Generate(request, metadata=old))
        assert (error.code(), details["ErrorInfo"].reason) == (CODES.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert 28_000 < details["RetryInfo"].retry_delay.ToMilliseconds() <= 30_000
        assert int(error.trailing_metadata()[RETRY_PUSHBACK_KEY]) == details["RetryInfo"].retry_delay.ToMilliseconds()
        await client.generation.Generate(request, metadata=new)
        await client.models.ListModels(model_service_pb2.ListModelsRequest(), metadata=old)
