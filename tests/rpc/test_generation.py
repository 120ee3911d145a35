"""GenerationService over real sockets, before a verifier that plays scripts."""

import asyncio

import grpc
import pytest

from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import types_pb2
from tests.rpc.calls import spec, stream
from tests.rpc.fake_verifier import finished, play, started, verified

STOP, LENGTH = types_pb2.FINISH_REASON_STOP, types_pb2.FINISH_REASON_LENGTH


async def test_a_stream_from_beginning_to_end(client, fake, tokenizer):
    ids = tokenizer.encode("jumps over 中 it")
    speculation = types_pb2.SpeculationStatistics(
        num_rounds=2, num_draft_tokens=8, num_accepted_tokens=3, accepted_by_position=[2, 1, 0, 0]
    )
    fake.script = lambda request: play(
        started(seed=41, num_cached_tokens=1),
        verified(ids[:1]),
        verified(ids[1:3], num_drafted_tokens=1, num_draft_tokens=4),
        verified(ids[3:], num_drafted_tokens=2, num_draft_tokens=4),
        finished(LENGTH, speculation=speculation),
    )
    first, deltas, last = await stream(client, spec(request_id="r-1"))
    num_prompt = len(tokenizer.encode("the fox")) + 1
    assert first == types_pb2.Started(
        request_id="r-1", model="tiny", seed=41, num_prompt_tokens=num_prompt, num_cached_tokens=1
    )
    assert "".join(delta.text for delta in deltas) == "jumps over 中 it"
    assert sum(delta.num_tokens for delta in deltas) == len(ids)
    assert sum(delta.num_drafted_tokens for delta in deltas) == 3
    assert not any(delta.tokens for delta in deltas), "tokens are told when asked for"
    assert last == types_pb2.Finished(
        reason=LENGTH,
        usage=types_pb2.Usage(num_prompt_tokens=num_prompt, num_cached_tokens=1, num_output_tokens=len(ids)),
        speculation=speculation,
    )


async def test_unary_is_the_same_as_one_message(client, fake, tokenizer):
    ids = tokenizer.encode("jumps over 中")
    fake.script = lambda request: play(
        started(seed=41), *(verified([token_id], 1, 2) for token_id in ids), finished(STOP, stop_token_id=1)
    )
    given = spec(request_id="r-1", output={"token_ids": True})
    first, deltas, last = await stream(client, given)
    whole = await client.generation.Generate(pb.GenerateRequest(spec=given))
    assert (whole.started, whole.finished) == (first, last)
    assert whole.output.text == "jumps over 中" and whole.output.num_tokens == len(ids)
    assert list(whole.output.tokens) == [token for delta in deltas for token in delta.tokens]
    assert whole.output.num_drafted_tokens == len(ids)
    assert (last.reason, last.WhichOneof("match"), last.stop_token_id) == (STOP, "stop_token_id", 1)


async def test_what_the_verifier_is_asked(client, fake, tokenizer):
    given = spec(
        sampling={"temperature": 0.5, "seed": 3, "logit_bias": {5: 1.0}},
        stopping={"max_tokens": 9, "min_tokens": 2, "stop_token_ids": [8], "ignore_eos": True},
        output={"top_logprobs": 0, "prompt_logprobs": True},
        speculation={"num_speculative_tokens": 0},
        cache_salt="tenant",
        output_format={"regex": "a+"},
    )
    await stream(client, given)
    await stream(client, spec())
    full, empty = fake.requests
    assert list(full.prompt_token_ids) == [tokenizer.bos_token_id, *tokenizer.encode("the fox")]
    assert full.sampling == given.sampling and full.cache_salt == "tenant"
    assert (full.max_tokens, full.min_tokens, list(full.stop_token_ids), full.ignore_eos) == (9, 2, [8], True)
    assert full.HasField("top_logprobs") and full.top_logprobs == 0 and full.prompt_logprobs
    assert full.HasField("num_speculative_tokens") and full.num_speculative_tokens == 0
    assert len(empty.request_id) == 32, "minted"
    assert empty.max_tokens == 8192, "this gateway's limit"
    assert not empty.HasField("top_logprobs") and not empty.HasField("num_speculative_tokens")
    assert empty.sampling == types_pb2.SamplingOptions(seed=empty.sampling.seed)
    assert empty.sampling.HasField("seed"), "whoever has to go on with the text has the same one"
    assert full.output_format.regex == "a+" and not empty.HasField("output_format")


async def test_the_three_kinds_of_prompt(client, fake, tokenizer):
    conversation = types_pb2.Conversation(
        messages=[
            {"role": types_pb2.ROLE_SYSTEM, "text": "world"},
            {"role": types_pb2.ROLE_USER, "text": "the <eos>"},
            {"role": types_pb2.ROLE_MODEL, "text": "fox"},
        ]
    )
    prompts = [
        types_pb2.GenerationSpec(text="the <eos> fox"),
        types_pb2.GenerationSpec(token_ids={"ids": [5, 1, 7]}),
        types_pb2.GenerationSpec(conversation=conversation),
        types_pb2.GenerationSpec(text=""),
    ]
    counts = [
        (await client.generation.CountTokens(pb.CountTokensRequest(spec=prompt))).num_tokens for prompt in prompts
    ]
    for prompt in prompts:
        await stream(client, prompt)
    asked = [list(request.prompt_token_ids) for request in fake.requests]
    assert counts == [len(ids) for ids in asked]
    bos, turn, end = (tokenizer.special_tokens[name] for name in ("<bos>", "<|turn>", "<turn|>"))
    encode = tokenizer.encode
    assert asked[0] == [bos, *encode("the <eos> fox")]
    assert asked[1] == [5, 1, 7]
    assert asked[2] == [
        *(bos, turn, *encode("system\nworld"), end, *encode("\n")),
        *(turn, *encode("user\nthe <eos>"), end, *encode("\n")),
        *(turn, *encode("model\nfox"), end, *encode("\n")),
        *(turn, *encode("model\n")),
    ]
    assert asked[3] == [bos]


async def test_a_stop_text_over_rounds_ends_the_stream_and_frees_the_verifier(client, fake, tokenizer):
    ids = tokenizer.encode("jumps over the lazy dog and goes on")
    needed = next(n for n in range(len(ids)) if "lazy" in tokenizer.decode(ids[:n]))

    async def script(request):
        yield started(seed=1)
        yield verified(ids[:1])
        for index in range(1, len(ids), 2):
            yield verified(ids[index : index + 2], num_drafted_tokens=1, num_draft_tokens=3)
        await asyncio.Event().wait()

    fake.script = script
    _, deltas, last = await stream(client, spec(stopping={"stop": ["lazy"]}))
    assert "".join(delta.text for delta in deltas) == "jumps over the "
    assert (last.reason, last.WhichOneof("match"), last.stop_text) == (STOP, "stop_text", "lazy")
    assert last.usage.num_output_tokens == needed == sum(delta.num_tokens for delta in deltas)
    num_rounds = needed // 2
    assert last.speculation == types_pb2.SpeculationStatistics(
        num_rounds=num_rounds,
        num_draft_tokens=3 * num_rounds,
        num_accepted_tokens=num_rounds,
        accepted_by_position=[num_rounds, 0, 0],
    )
    async with asyncio.timeout(1):
        await fake.idle.wait()


async def test_logprobs_of_prompt_and_output(client, fake, tokenizer):
    def logprobs(token_id):
        return {"logprob": -float(token_id), "top_logprobs": [{"id": token_id, "logprob": -0.5}]}

    ids = tokenizer.encode("fox")

    def script(request):
        prompt = request.prompt_token_ids
        return play(
            started(prompt_logprobs=[logprobs(token_id) for token_id in prompt[1:]]),
            verified(ids, logprobs=[logprobs(token_id) for token_id in ids]),
            finished(),
        )

    fake.script = script
    first, deltas, _ = await stream(client, spec("the 中", output={"top_logprobs": 1, "prompt_logprobs": True}))
    assert [token.id for token in first.prompt_tokens] == tokenizer.encode("the 中")
    assert "".join(token.text for token in first.prompt_tokens) == "the 中"
    tokens = [token for delta in deltas for token in delta.tokens]
    assert [token.id for token in tokens] == ids
    assert all(token.logprob == -token.id for token in [*first.prompt_tokens, *tokens])
    assert all(token.top_logprobs[0].id == token.id for token in [*first.prompt_tokens, *tokens])


async def test_a_dropped_stream_reaches_the_verifier_at_once(client, fake):
    async def script(request):
        yield started()
        yield verified([70])
        await asyncio.Event().wait()

    fake.script = script
    call = client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec()))
    await call.read()
    assert fake.num_running == 1
    dropped = asyncio.get_running_loop().time()
    call.cancel()
    async with asyncio.timeout(1):
        await fake.idle.wait()
    assert asyncio.get_running_loop().time() - dropped < 0.2


async def test_a_dropped_unary_call_reaches_the_verifier_at_once(client, fake):
    arrived = asyncio.Event()

    async def script(request):
        arrived.set()
        yield started()
        await asyncio.Event().wait()

    fake.script = script
    call = client.generation.Generate(pb.GenerateRequest(spec=spec()))
    await arrived.wait()
    call.cancel()
    async with asyncio.timeout(1):
        await fake.idle.wait()


async def test_the_deadline_is_passed_on_and_frees_the_sequence(client, fake):
    async def script(request):
        yield started()
        await asyncio.Event().wait()

    fake.script = script
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream(client, spec(), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0 < fake.deadlines[0] < 0.31, "what is left of it"
    async with asyncio.timeout(1):
        await fake.idle.wait()
    await asyncio.sleep(0)
    assert fake.num_running == 0


async def test_without_a_deadline_there_is_none(client, fake):
    await stream(client, spec())
    assert fake.deadlines == [None]


async def test_a_slow_reader_holds_up_nobody(client, fake, tokenizer, caplog):
    """The slow stream's verifier is held back after a bounded amount; fast streams beside it run at full speed."""
    ids = tokenizer.encode("the fox ") * 50
    num_sent = {"slow": 0, "fast": 0}

    async def script(request):
        yield started()
        for _ in range(100_000 if request.request_id == "slow" else 100):
            num_sent[request.request_id] += len(ids)
            yield verified(ids)
        yield finished()

    fake.script = script
    options = {"output": {"token_ids": True}}
    slow = client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec(request_id="slow", **options)))
    await slow.read()
    for _ in range(3):
        _, deltas, _ = await stream(client, spec(request_id="fast"))
        assert sum(delta.num_tokens for delta in deltas) == 100 * len(ids)
    held_at = -1
    for _ in range(50):
        if num_sent["slow"] == held_at:
            break
        held_at = num_sent["slow"]
        await asyncio.sleep(0.05)
    assert num_sent["slow"] == held_at < 1000 * len(ids), "flow control reaches the verifier"
    assert fake.num_running == 1
    slow.cancel()
    async with asyncio.timeout(1):
        await fake.idle.wait()
    assert not [record for record in caplog.records if record.levelname == "ERROR"], "a client that goes is no fault"


async def test_long_prompts_are_encoded_beside_the_event_loop(client, tokenizer, monkeypatch):
    """While a long prompt is encoded, short requests are answered."""
    long = asyncio.create_task(stream(client, spec("the quick brown fox " * 90_000)))
    await asyncio.sleep(0)
    num_answered = 0
    while not long.done():
        await client.generation.CountTokens(pb.CountTokensRequest(spec=spec()))
        num_answered += 1
    assert num_answered > 5
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        long.result()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
