"""A gateway before several verifiers that play scripts: who is asked, and who goes on with a text."""

import asyncio
import socket
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tandem.core.errors import ConfigError, Draining, EngineFault, NoReplica, QueueFull
from tandem.gateway import ejection
from tandem.gateway.config import GatewayConfig
from tandem.gateway.service import open_gateway
from tandem.telemetry import metrics as names
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import types_pb2
from tests.rpc.fake_verifier import FakeVerifier, finished, play, serving, started, verified
from tests.rpc.test_gateway_errors import CODES, refusal
from tests.rpc.test_generation import spec, stream

SERVING = health_pb2.HealthCheckResponse.SERVING
STOP = types_pb2.FINISH_REASON_STOP


class Replica(FakeVerifier):
    """A fake verifier and its server."""

    server = None


@asynccontextmanager
async def replicas(open_client, addresses, **settings):
    """A verifier at each address, and a client of a gateway that knows that all of them serve."""
    async with AsyncExitStack() as stack:
        made = []
        for address in addresses:
            made.append(Replica())
            made[-1].server = await stack.enter_async_context(serving(made[-1], address))
        client = await stack.enter_async_context(open_client(**({"verifier": ",".join(addresses)} | settings)))
        await knows(client, len(addresses))
        yield client, *made


@pytest.fixture
async def two(open_client, tmp_path):
    """A client, and two verifiers behind its gateway."""
    addresses = [f"unix:{tmp_path}/{number}.sock" for number in range(2)]
    async with replicas(open_client, addresses, resume_seconds=0.5) as all_of_them:
        yield all_of_them


async def knows(client, count):
    """Waits until a gateway knows so many verifiers that serve."""
    async with asyncio.timeout(5):
        while client.gateway.metrics.value(names.SERVING_VERIFIERS) != count:
            await asyncio.sleep(0.01)


def both_play(script, *verifiers):
    """Has all verifiers play one script; it is given the number of the request, counted over all of them."""
    requests = []

    def numbered(request):
        requests.append(request)
        return script(request, len(requests))

    for one in verifiers:
        one.script = numbered
    return requests


LOSSES = [Draining("the verifier stops"), NoReplica("gone"), EngineFault("broken")]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.reason)
async def test_another_verifier_goes_on_with_a_text(two, tokenizer, loss):
    client, *verifiers = two
    ids = tokenizer.encode("jumps over the lazy dog 中 and goes on")
    cut = next(n for n in range(len(ids)) if "laz" in tokenizer.decode(ids[:n]))
    logprobs = [{"logprob": -float(token_id)} for token_id in ids]

    async def script(request, number):
        first, last = (0, cut) if number == 1 else (cut, len(ids))
        yield started(seed=request.sampling.seed, num_cached_tokens=number)
        for index in range(first, last):
            yield verified(ids[index : index + 1], 1, 2, logprobs=logprobs[index : index + 1])
        if number == 1:
            raise loss
        yield finished(STOP, stop_token_id=1, speculation=types_pb2.SpeculationStatistics(num_rounds=1))

    requests = both_play(script, *verifiers)
    asked = spec(
        output={"token_ids": True, "top_logprobs": 0, "prompt_logprobs": True},
        stopping={"max_tokens": 90, "min_tokens": 3, "stop": ["and goes off"]},
        cache_salt="tenant",
    )
    first, deltas, last = await stream(client, asked)
    tokens = [token for delta in deltas for token in delta.tokens]
    assert "".join(delta.text for delta in deltas) == "jumps over the lazy dog 中 and goes on"
    assert [token.id for token in tokens] == ids
    assert [token.logprob for token in tokens] == [-float(token_id) for token_id in ids]
    assert (first.seed, first.num_cached_tokens) == (requests[0].sampling.seed, 1)
    assert last.usage.num_output_tokens == len(ids) and last.usage.num_cached_tokens == 1
    assert last.speculation.num_rounds == last.speculation.num_accepted_tokens == len(ids)
    rest = requests[1]
    assert list(rest.output_token_ids) == ids[:cut] and not rest.prompt_logprobs
    rest.ClearField("output_token_ids")
    requests[0].prompt_logprobs = False
    assert rest == requests[0], "all else is asked for again, the seed among it"
    assert sorted(len(one.requests) for one in verifiers) == [1, 1]
    assert client.gateway.metrics.value(names.RESUMED_STREAMS, reason=loss.reason) == 1


async def test_a_stop_text_begun_by_one_verifier_is_ended_by_another(two, tokenizer):
    client, *verifiers = two
    ids = tokenizer.encode("jumps over the lazy dog")
    cut = next(n for n in range(len(ids)) if tokenizer.decode(ids[:n]).endswith("the"))

    async def script(request, number):
        yield started()
        yield verified(ids[:cut] if number == 1 else ids[cut:])
        raise Draining("the verifier stops")

    both_play(script, *verifiers)
    _, deltas, last = await stream(client, spec(stopping={"stop": ["the lazy"]}))
    assert "".join(delta.text for delta in deltas) == "jumps over "
    assert (last.reason, last.stop_text) == (STOP, "the lazy")


async def test_a_verifier_that_dies_takes_no_text_with_it(two):
    client, *verifiers = two

    async def script(request, number):
        yield started()
        if number == 1:
            yield verified([70, 71])
            victim = next(one for one in verifiers if one.num_running)
            dying.append(asyncio.create_task(victim.server.stop(0)))
            await asyncio.Event().wait()
        yield verified([72])
        yield finished()

    dying = []
    requests = both_play(script, *verifiers)
    _, deltas, last = await stream(client, spec())
    assert last.usage.num_output_tokens == 3 and list(requests[1].output_token_ids) == [70, 71]
    await asyncio.gather(*dying)
    await knows(client, 1)
    both_play(lambda request, number: play(started(), verified([70]), finished()), *verifiers)
    await stream(client, spec())


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


@pytest.mark.parametrize(
    ("loss", "code", "count"), [(EngineFault("broken"), CODES.INTERNAL, 2), (NoReplica("gone"), CODES.UNAVAILABLE, 5)]
)
async def test_a_text_that_breaks_one_verifier_after_the_other_is_given_up(two, loss, code, count):
    client, *verifiers = two

    async def script(request, number):
        yield started()
        yield verified([70])
        raise loss

    requests = both_play(script, *verifiers)
    error, _ = await refusal(client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec())))
    assert error.code() is code and len(requests) == count


async def test_a_text_waits_for_a_verifier_but_not_for_ever(two):
    client, one, other = two

    async def script(request, number):
        yield started()
        if number == 1 or request.request_id == "hopeless":
            for verifier in (one, other):
                verifier.server.set_serving(False)
            yield verified([70])
            raise Draining("the verifier stops")
        yield finished()

    requests = both_play(script, one, other)
    waiting = asyncio.create_task(stream(client, spec()))
    await knows(client, 0)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    other.server.set_serving(True)
    _, _, last = await waiting
    assert last.usage.num_output_tokens == 1 and len(requests) == 2
    hopeless = spec(request_id="hopeless")
    error, _ = await refusal(client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=hopeless)))
    assert error.code() is CODES.UNAVAILABLE
    one.server.set_serving(True)
    await knows(client, 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream(client, hopeless, timeout=0.3)
    assert caught.value.code() is CODES.DEADLINE_EXCEEDED


async def test_another_model_does_not_go_on_with_a_text(two):
    client, one, other = two
    other.model.revision = "another"
    other.server.set_serving(False)
    await knows(client, 1)
    other.server.set_serving(True)
    await knows(client, 2)

    async def script(request, number):
        if number == 1:
            yield started()
            yield verified([70])
        raise Draining("the verifier stops")

    requests = both_play(script, one, other)
    error, _ = await refusal(client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec())))
    assert error.code() is CODES.UNAVAILABLE
    assert not one.requests or not other.requests
    assert requests


async def test_one_that_drains_gets_nothing_new_and_finishes_what_it_has(two):
    client, *verifiers = two
    go_on = asyncio.Event()

    async def script(request, number):
        yield started()
        if number == 1:
            yield verified([70])
            await go_on.wait()
        yield finished()

    both_play(script, *verifiers)
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
    release = asyncio.Event()

    async def script(request, number):
        yield started()
        await release.wait()
        yield finished()

    both_play(script, *verifiers)
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
    go_on = asyncio.Event()

    async def script(request, number):
        yield started()
        if number == 1:
            await go_on.wait()
        yield finished()

    settings = {"verifier": f"dns:verifiers:{port}", "verifier_refresh_seconds": 0.02, "trust_network": True}
    async with replicas(open_client, [f"{address}:{port}" for address in sorted(addresses)], **settings) as found:
        client, *verifiers = found
        both_play(script, *verifiers)
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


async def test_without_a_second_verifier_a_lost_text_is_lost_at_once(client, fake):
    async def script(request):
        yield started()
        yield verified([70])
        raise Draining("the verifier stops")

    fake.script = script
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(1):
            await stream(client, spec())
    assert caught.value.code() is CODES.UNAVAILABLE and len(fake.requests) == 1
