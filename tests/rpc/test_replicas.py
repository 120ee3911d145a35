"""A gateway before several verifiers that play scripts: who is asked."""

import asyncio
import socket

import grpc
import pytest

from tandem.core.errors import ConfigError, NoReplica, QueueFull
from tandem.gateway import ejection
from tandem.gateway.config import GatewayConfig
from tandem.gateway.service import open_gateway
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import types_pb2
from tests.rpc.calls import refusal, spec, stream
from tests.rpc.fake_verifier import finished, held, play, started
from tests.rpc.replicas import both_play, knows, replicas

CODES = grpc.StatusCode


async def test_a_request_that_one_refuses_is_taken_by_another_and_each_is_asked_once(two):
    client, *verifiers = two

    async def script(request, number):
        if number in (1, 3, 4):
            raise QueueFull("full")
        yield started()
        yield finished()

    requests = both_play(script, *verifiers)
    await stream(client, spec())
    assert len(requests) == 2
    error, _ = await refusal(client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec())))
    assert error.code() is CODES.RESOURCE_EXHAUSTED and len(requests) == 4


async def test_one_that_drains_gets_nothing_new_and_finishes_what_it_has(two):
    client, *verifiers = two
    go_on, wait = held(finished())
    both_play(lambda request, number: wait(request) if number == 1 else play(started(), finished()), *verifiers)
    call = aiter(client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec())))
    await anext(call)
    draining = next(one for one in verifiers if one.num_running)
    draining.server.set_serving(False)
    await knows(client, 1)
    for _ in range(3):
        await stream(client, spec())
    assert len(draining.requests) == 1
    go_on.set()
    assert [event.WhichOneof("event") async for event in call][-1] == "finished"


async def test_one_whose_calls_break_is_left_alone_for_a_while(two, monkeypatch):
    client, *verifiers = two
    monkeypatch.setattr(ejection, "MAX_SECONDS", 0.5)
    broken = []

    def script(who):
        async def play_script(request):
            broken[:] = broken or [who]
            if who in broken:
                raise NoReplica("gone")
            yield started()
            yield finished()

        return play_script

    for one in verifiers:
        one.script = script(one)
    for _ in range(4):
        await stream(client, spec())
    assert len(broken[0].requests) == 1, "it says SERVING all the same"
    await asyncio.sleep(0.5)
    for number in range(24):  # of two that are alike, it depends on prompt and address who is asked
        await stream(client, spec(f"fox number {number}"))
        if len(broken[0].requests) == 2:
            return
    raise AssertionError("it is never asked again")


async def test_requests_are_spread_and_prompts_that_begin_alike_meet(two):
    client, *verifiers = two
    release, wait = held(finished())
    both_play(lambda request, number: wait(request), *verifiers)
    calls = [
        aiter(client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec(f"fox number {number}"))))
        for number in range(6)
    ]
    for call in calls:
        await anext(call)
    assert [one.num_running for one in verifiers] == [3, 3]
    release.set()
    for call in calls:
        assert [event async for event in call]
    num_before = [len(one.requests) for one in verifiers]
    for number in range(4):
        await stream(client, types_pb2.GenerationSpec(token_ids={"ids": [*range(20, 100), number]}))
    assert sorted(len(one.requests) - num for one, num in zip(verifiers, num_before, strict=True)) == [0, 4]


async def test_a_name_stands_for_all_its_addresses_of_the_moment(open_client, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    addresses = {"127.0.0.1", "127.0.0.2"}

    def look_up(host, port, *args, **kwargs):
        if host != "verifiers":
            return getaddrinfo(host, port, *args, **kwargs)
        if not addresses:
            raise socket.gaierror("no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    go_on, wait = held(finished())
    settings = {"verifier": f"dns:verifiers:{port}", "verifier_refresh_seconds": 0.02, "trust_network": True}
    async with replicas(open_client, [f"{address}:{port}" for address in sorted(addresses)], **settings) as found:
        client, *verifiers = found
        both_play(lambda request, number: wait(request) if number == 1 else play(started(), finished()), *verifiers)
        call = aiter(client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec())))
        await anext(call)
        leaving = next(one for one in verifiers if one.num_running)
        addresses.remove(f"127.0.0.{verifiers.index(leaving) + 1}")
        await knows(client, 1)
        for number in range(4):
            await stream(client, spec(f"fox number {number}"))
        assert len(leaving.requests) == 1
        go_on.set()
        assert [event.WhichOneof("event") async for event in call][-1] == "finished", "what runs there is not cut off"
        addresses.clear()
        await asyncio.sleep(0.1)
        await stream(client, spec())  # a name server that is away takes nobody with it


@pytest.mark.parametrize("setting", ["", "unix:/a,,unix:/b", "dns:verifiers", "dns::1", "dns:verifiers:http"])
async def test_addresses_that_mean_nothing(checkpoint, setting):
    with pytest.raises(ConfigError, match="--verifier"):
        async with open_gateway(GatewayConfig(tokenizer=str(checkpoint), listen="127.0.0.1:0", verifier=setting)):
            pass
