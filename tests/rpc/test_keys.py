"""API keys: who is let in, how much each may ask for, and how keys are replaced."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2_grpc

from tandem.gateway import authentication
from tandem.rpc.errors import RETRY_PUSHBACK_KEY
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import model_service_pb2
from tests.rpc.calls import refusal, refused, spec
from tests.rpc.fake_verifier import finished, held, verified

CODES = grpc.StatusCode
SERVING = health_pb2.HealthCheckResponse.SERVING


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


async def test_keys_are_replaced_while_a_stream_runs(open_client, verifier, fake, tmp_path, monkeypatch):
    monkeypatch.setattr(authentication, "REFRESH_SECONDS", 0.02)
    go_on, fake.script = held(finished())
    path = tmp_path / "keys"
    path.write_text("old\n")
    old, new = ([("authorization", f"Bearer {key}")] for key in ("old", "new"))
    list_models = model_service_pb2.ListModelsRequest()

    async def until(metadata, is_good):
        async with asyncio.timeout(3):
            while True:
                code = await client.models.ListModels(list_models, metadata=metadata).code()
                if (code is CODES.OK) == is_good:
                    return
                await asyncio.sleep(0.02)

    async with open_client(api_keys_file=str(path)) as client:
        await client.wait_for_health(SERVING)
        call = client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec()), metadata=old)
        await call.read()
        path.write_text("old\nnew\n")
        await until(new, True)
        await until(old, True)
        path.write_text("new # rotated\nnew\n")
        await until(old, False)
        path.write_text("")
        await asyncio.sleep(0.1)
        await until(new, True)  # a file without keys changes nothing
        go_on.set()
        assert (await call.read()).HasField("finished")


async def test_each_key_has_its_own_streams_and_tokens(open_client, verifier, fake, tmp_path):
    go_on, fake.script = held(verified([70] * 20), finished())
    (tmp_path / "keys").write_text("one\ntwo\n")
    one, two = ([("authorization", f"Bearer {key}")] for key in ("one", "two"))
    request = pb.StreamGenerateRequest(spec=spec())
    settings = {"streams_per_key": 1, "tokens_per_minute": 12, "api_keys_file": str(tmp_path / "keys")}
    async with open_client(**settings) as client:
        await client.wait_for_health(SERVING)
        events = aiter(client.generation.StreamGenerate(request, metadata=one))
        num_tokens = (await anext(events)).started.num_prompt_tokens + 20
        error, details = await refusal(client.generation.StreamGenerate(request, metadata=one, timeout=5))
        assert (error.code(), details["ErrorInfo"].reason) == (CODES.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert "at a time" in error.details() and details["RetryInfo"].retry_delay.ToMilliseconds() == 1000
        other = client.generation.StreamGenerate(request, metadata=two)
        await other.read()
        other.cancel()
        go_on.set()
        assert [event async for event in events][-1].HasField("finished")
        error, details = await refusal(client.generation.StreamGenerate(request, metadata=one))
        assert "tokens" in error.details()
        seconds = details["RetryInfo"].retry_delay.ToMilliseconds() / 1000
        owed = num_tokens - 12
        assert owed > 8 and (owed + 1) * 5 - 3 < seconds <= (owed + 1) * 5  # until one more is there
