"""A gateway before several verifiers that play scripts: who goes on with a text that one has begun."""

import asyncio

import grpc
import pytest

from tandem.core.errors import Draining, EngineFault, NoReplica
from tandem.telemetry import metrics as names
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import types_pb2
from tests.rpc.calls import refusal, spec, stream
from tests.rpc.fake_verifier import finished, play, started, verified
from tests.rpc.replicas import both_play, knows

CODES = grpc.StatusCode
STOP = types_pb2.FINISH_REASON_STOP


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
