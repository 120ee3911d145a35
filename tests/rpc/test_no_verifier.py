"""What a client is told while no verifier serves: before it comes, once it stops, after it died."""

import asyncio
import os
import sys

import grpc
from grpc_health.v1 import health_pb2

from tandem.rpc.errors import RETRY_PUSHBACK_KEY
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import model_service_pb2
from tests.rpc.calls import refusal, refused, spec
from tests.rpc.fake_verifier import FakeVerifier, finished, held, serving, started, verified

CODES = grpc.StatusCode
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


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
    go_on, fake.script = held(finished())
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
from tests.rpc.fake_verifier import FakeVerifier, held, serving

async def main():
    fake = FakeVerifier()
    _, fake.script = held()
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
