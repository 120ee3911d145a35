import asyncio
import os
import socket
import stat
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tandem.core.errors import ConfigError, QueueFull
from tandem.internal.v1 import verifier_service_pb2 as pb
from tandem.internal.v1 import verifier_service_pb2_grpc as pb_grpc
from tandem.rpc.channel import KEEPALIVE_SECONDS, open_channel
from tandem.rpc.errors import RETRY_PUSHBACK_KEY, from_rpc_error
from tandem.rpc.request_id import current_request_id
from tandem.rpc.server import RpcServer, ServerLimits, _options
from tests.rpc.fake_verifier import SERVICE, finished, held

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_is_not_serving_until_told(server, channel):
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == NOT_SERVING
    alive = health_pb2.HealthCheckRequest(service="grpc.health.v1.Health")
    assert (await health.Check(alive)).status == SERVING
    server.set_serving(True)
    for name in ("", SERVICE):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_hears_every_change_and_the_end(server, channel):
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert (await watch.read()).status == NOT_SERVING
    for is_serving, status in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
        server.set_serving(is_serving)
        assert (await watch.read()).status == status
    async with asyncio.timeout(0.4):  # watchers alone do not hold up a server that stops
        await server.stop(5)
    assert (await watch.read()).status == NOT_SERVING
    assert await watch.read() is grpc.aio.EOF


async def test_watch_of_an_unknown_service_waits(server, channel):
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


async def test_a_port_for_probes_tells_health_and_nothing_else(fake, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = RpcServer()
    server.add(pb_grpc.add_VerifierServiceServicer_to_server, fake, SERVICE)
    await server.start(f"unix:{tmp_path}/s", f"127.0.0.1:{port}")
    async with open_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
        server.set_serving(True)
        assert (await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.VerifierServiceStub(channel).DescribeModel(pb.DescribeModelRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await server.stop(0)
        with pytest.raises(grpc.aio.AioRpcError):
            await health.Check(health_pb2.HealthCheckRequest(), timeout=1)
    other = RpcServer()
    with socket.socket() as taken, pytest.raises(ConfigError, match="cannot tell health on"):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        try:
            await other.start(f"unix:{tmp_path}/s", f"127.0.0.1:{taken.getsockname()[1]}")
        finally:
            await other.stop(0)


async def test_reflection_lists_services_where_it_is_on(fake, channel):
    closed = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    assert await closed.code() is grpc.StatusCode.UNIMPLEMENTED
    server = RpcServer(has_reflection=True)
    server.add(pb_grpc.add_VerifierServiceServicer_to_server, fake, SERVICE)
    async with open_channel(await server.start("127.0.0.1:0")) as channel:
        await _lists_services(channel)
    await server.stop(0)


async def _lists_services(channel):
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in (await call.read()).list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= names
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE))
    assert (await call.read()).file_descriptor_response.file_descriptor_proto
    await call.done_writing()


async def test_unix_socket_is_private_and_replaces_a_stale_one(fake, tmp_path):
    path = tmp_path / "made" / "verifier.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(path))

    server = RpcServer()
    server.add(pb_grpc.add_VerifierServiceServicer_to_server, fake, SERVICE)
    assert await server.start(f"unix:{path}") == f"unix:{path}"
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with open_channel(f"unix:{path}") as channel:
            await pb_grpc.VerifierServiceStub(channel).DescribeModel(pb.DescribeModelRequest())
        with pytest.raises(ConfigError, match="another process"):
            await RpcServer().start(f"unix:{path}")
    finally:
        await server.stop(0)
    again = RpcServer()
    await again.start(f"unix:{path}")
    await again.stop(0)


async def test_a_directory_that_is_missing_is_made_private(tmp_path):
    server = RpcServer()
    await server.start(f"unix:{tmp_path}/new/verifier.sock")
    await server.stop(0)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


async def test_addresses_that_cannot_be_listened_on(server, tmp_path):
    regular = tmp_path / "file"
    regular.write_text("kept")
    for listen in (
        server.address,
        "localhost",
        "localhost:http",
        "127.0.0.1:65536",
        ":8700",
        f"unix:{regular}",
        f"unix:{tmp_path}/{'x' * 120}",
        "unix:relative.sock",
        f"unix:{regular}/below.sock",
    ):
        with pytest.raises(ConfigError, match="cannot listen on"):
            await RpcServer().start(listen)
    assert regular.read_text() == "kept"


async def test_a_directory_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    if tmp_path.stat().st_uid == 0:
        os.chown(tmp_path, 12345, -1)
    with pytest.raises(ConfigError, match="somebody else"):
        await RpcServer().start(f"unix:{tmp_path}/verifier.sock")


async def test_messages_have_a_limit(fake):
    server = RpcServer(limits=ServerLimits(max_message_bytes=1000))
    server.add(pb_grpc.add_VerifierServiceServicer_to_server, fake, SERVICE)
    address = await server.start("127.0.0.1:0")
    async with open_channel(address) as channel:
        call = pb_grpc.VerifierServiceStub(channel).Generate(pb.GenerateRequest(cache_salt="x" * 2000))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await server.stop(0)


async def test_unknown_exceptions_leak_nothing(fake, stub, caplog):
    async def generate(request):
        yield pb.GenerateResponse(started={})
        raise RuntimeError("/secret/path")

    fake.describe_error, fake.script = RuntimeError("/secret/path"), generate
    with pytest.raises(grpc.aio.AioRpcError) as unary:
        await stub.DescribeModel(pb.DescribeModelRequest())
    with pytest.raises(grpc.aio.AioRpcError) as stream:
        async for _ in stub.Generate(pb.GenerateRequest(request_id="r-42")):
            pass
    for error in (unary.value, stream.value):
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in repr(error) + repr(error.trailing_metadata())
    assert "r-42" in stream.value.details()
    assert "request r-42 failed" in caplog.text and "/secret/path" in caplog.text


async def test_request_id_is_the_clients_or_minted(fake, stub):
    seen = []

    async def generate(request):
        seen.append(current_request_id())
        yield pb.GenerateResponse(started={})

    fake.script = generate
    for request_id in ("r-1", "", "x" * 129, "two\nlines"):
        async for _ in stub.Generate(pb.GenerateRequest(request_id=request_id)):
            pass
    assert seen[0] == "r-1"
    assert all(len(request_id) == 32 for request_id in seen[1:]) and len(set(seen)) == 4


async def test_a_refusal_is_retried_by_grpc_itself_after_the_pushback(server, fake):
    """Only a refusal without initial metadata may be retried: gRPC's own retry is the proof that none was sent."""
    arrivals = []

    async def generate(request):
        arrivals.append(asyncio.get_running_loop().time())
        if len(arrivals) < 3:
            raise QueueFull("full", retry_after_seconds=0.15)
        yield pb.GenerateResponse(started={})

    fake.script = generate
    config = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.001s",
        "maxBackoff": "0.001s", "backoffMultiplier": 1, "retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}}]}"""
    options = [("grpc.service_config", config), ("grpc.enable_retries", 1)]
    async with grpc.aio.insecure_channel(server.address, options=options) as channel:
        responses = [r async for r in pb_grpc.VerifierServiceStub(channel).Generate(pb.GenerateRequest())]
    assert len(responses) == 1 and len(arrivals) == 3
    assert arrivals[1] - arrivals[0] >= 0.15 and arrivals[2] - arrivals[1] >= 0.15


async def test_a_dropped_call_closes_the_servicers_generator_at_once(fake, stub):
    closed = asyncio.Event()

    async def generate(request):
        try:
            while True:
                yield pb.GenerateResponse(round={"token_ids": [1] * 1000})
                await asyncio.sleep(0)
        finally:
            closed.set()

    fake.script = generate
    call = stub.Generate(pb.GenerateRequest())
    await call.read()
    call.cancel()
    async with asyncio.timeout(1):
        await closed.wait()


async def test_stop_lets_running_requests_finish_and_refuses_new_ones(server, fake, channel, stub):
    go_on, fake.script = held(finished())
    server.set_serving(True)
    running = stub.Generate(pb.GenerateRequest())
    await running.read()
    stopping = asyncio.create_task(server.stop(5))
    await asyncio.sleep(0.05)
    status = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert status.status == NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(pb.GenerateRequest()).read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert from_rpc_error(caught.value).reason == "DRAINING"
    assert caught.value.trailing_metadata().get(RETRY_PUSHBACK_KEY) == "1000"
    go_on.set()
    assert (await running.read()).HasField("finished")
    assert await running.read() is grpc.aio.EOF
    await asyncio.wait_for(stopping, 2)


async def test_stop_ends_what_outlasts_the_grace(server, fake, stub):
    _, fake.script = held()
    call = stub.Generate(pb.GenerateRequest())
    await call.read()
    await asyncio.wait_for(server.stop(0.1), 2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert from_rpc_error(caught.value).reason == "NO_REPLICA"


async def test_default_socket_is_in_a_directory_of_ones_own(monkeypatch):
    from tandem.rpc.addresses import default_socket, socket_path

    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert str(os.getuid()) in default_socket("verifier")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_socket("verifier") == "unix:/run/user/7/tandem/verifier.sock"
    assert socket_path(default_socket("verifier")) == Path("/run/user/7/tandem/verifier.sock")
    assert socket_path("127.0.0.1:1") is None


def test_our_own_channels_ping_no_more_often_than_our_servers_allow():
    """A server ends a connection that pings more often, and with it every stream: seen after 160 idle seconds."""
    allowed = dict(_options(ServerLimits()))["grpc.http2.min_ping_interval_without_data_ms"]
    assert allowed < KEEPALIVE_SECONDS * 1000
