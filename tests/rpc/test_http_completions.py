"""Completions and models through the HTTP door with the official client, before a verifier that plays scripts."""

import openai as package
import pytest

from tandem.internal.v1 import verifier_service_pb2
from tandem.v1 import types_pb2
from tests.rpc.fake_verifier import finished, play, started, verified

LENGTH, STOP = types_pb2.FINISH_REASON_LENGTH, types_pb2.FINISH_REASON_STOP


async def test_a_streamed_completion_is_the_unary_one_in_pieces(openai, fake, tokenizer):
    ids = tokenizer.encode("jumps over 中 it")
    fake.script = lambda request: play(
        started(seed=41, num_cached_tokens=1), verified(ids[:1]), verified(ids[1:], 2, 4), finished(LENGTH)
    )
    asked = {"model": "tiny", "prompt": "the fox"}
    stream = await openai.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    whole = await openai.completions.create(**asked)
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.choices[0].text == "jumps over 中 it"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert [len(chunk.choices) for chunk in chunks] == [1, 1, 1, 1, 0]
    assert chunks[-1].usage == whole.usage and whole.usage.prompt_tokens_details.cached_tokens == 1
    assert whole.usage.completion_tokens == len(ids)
    assert chunks[0].tandem == whole.tandem == {"seed": 41}


async def test_a_stream_ends_with_done_and_its_events_have_no_usage_unless_asked(openai):
    raw = await openai.completions.with_raw_response.create(model="", prompt="the fox", stream=True)
    text = (await raw.http_response.aread()).decode()
    events = [line for line in text.split("\n\n") if line]
    assert events[-1] == "data: [DONE]" and all(event.startswith("data: {") for event in events[:-1])
    assert "usage" not in text
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert (raw.headers["cache-control"], raw.headers["x-accel-buffering"]) == ("no-store", "no")


async def test_log_probabilities_in_the_older_form(openai, fake, tokenizer):
    ids = [*tokenizer.encode("the 中"), 1]
    logprobs = [
        verifier_service_pb2.TokenLogprobs(logprob=-float(i), top_logprobs=[{"id": token, "logprob": -float(i)}])
        for i, token in enumerate(ids)
    ]
    fake.script = lambda request: play(
        started(), *(verified([i], logprobs=[p]) for i, p in zip(ids, logprobs, strict=True)),
        finished(STOP, stop_token_id=1),
    )  # fmt: skip
    asked = {"model": "", "prompt": "x", "logprobs": 1}
    whole = (await openai.completions.create(**asked)).choices[0]
    assert (whole.text, whole.finish_reason, whole.stop_reason) == ("the 中", "stop", 1)
    shown = whole.logprobs
    assert shown.token_logprobs == [-float(i) for i in range(len(ids) - 1)], "what only ends the text is no part of it"
    assert shown.top_logprobs == [{token: p} for token, p in zip(shown.tokens, shown.token_logprobs, strict=True)]
    spelled = [token for token in shown.tokens if not token.startswith("bytes:")]
    assert "the 中".startswith("".join(spelled)) and "bytes:\\xe4" in shown.tokens
    assert shown.text_offset[0] == 0 and shown.text_offset == sorted(shown.text_offset)
    chunks = [chunk.choices[0].logprobs async for chunk in await openai.completions.create(**asked, stream=True)]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [entry for one in chunks if one for entry in getattr(one, name)]
        assert joined == getattr(shown, name), name
    asked["logprobs"] = 0
    fake.script = lambda request: play(started(), verified(ids[:1], logprobs=[{"logprob": -1.0}]), finished())
    assert (await openai.completions.create(**asked)).choices[0].logprobs.top_logprobs is None


@pytest.mark.parametrize("prompt", [[70, 71], [[70, 71]]])
async def test_prompts_of_token_ids(openai, fake, prompt):
    await openai.completions.create(model="tiny", prompt=prompt)
    assert list(fake.requests[0].prompt_token_ids) == [70, 71]


async def test_every_field_reaches_the_verifier_and_what_is_left_out_stays_out(openai, fake, tokenizer):
    peers = {
        "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.5, "min_tokens": 2, "ignore_eos": True,
        "stop_token_ids": [8], "include_stop_str_in_output": True, "cache_salt": "tenant",
        "tandem": {"num_speculative_tokens": 0},
    }  # fmt: skip
    await openai.completions.create(
        model="tiny", prompt=["the fox"], temperature=0.5, top_p=0.75, seed=3, max_tokens=9, stop=["zz"],
        presence_penalty=0.5, frequency_penalty=-0.5, logit_bias={"5": 1}, n=1, best_of=1, echo=False, user="me",
        extra_body=peers, extra_headers={"x-request-id": "r-1"},
    )  # fmt: skip
    await openai.completions.create(model="tiny", prompt="the fox")
    asked, bare = fake.requests
    assert asked.sampling == types_pb2.SamplingOptions(
        temperature=0.5, top_p=0.75, top_k=5, min_p=0.1, seed=3, repetition_penalty=1.5,
        presence_penalty=0.5, frequency_penalty=-0.5, logit_bias={5: 1.0},
    )  # fmt: skip
    assert (asked.request_id, asked.max_tokens, asked.min_tokens) == ("r-1", 9, 2)
    assert (list(asked.stop_token_ids), asked.ignore_eos, asked.cache_salt) == ([8], True, "tenant")
    assert asked.HasField("num_speculative_tokens") and asked.num_speculative_tokens == 0
    assert list(asked.prompt_token_ids) == list(bare.prompt_token_ids)
    bare.sampling.ClearField("seed")  # the gateway's, in case another verifier has to go on
    assert bare.sampling == types_pb2.SamplingOptions() and bare.max_tokens == 8192
    assert not bare.HasField("top_logprobs") and not bare.HasField("num_speculative_tokens")


async def test_stop_texts(openai, fake, tokenizer):
    ids = tokenizer.encode("the fox jumps")
    fake.script = lambda request: play(started(), verified(ids), finished())
    choice = (await openai.completions.create(model="", prompt="x", stop=" fox")).choices[0]
    assert (choice.text, choice.finish_reason, choice.stop_reason) == ("the", "stop", " fox")
    kept = {"include_stop_str_in_output": True}
    assert (await openai.completions.create(model="", prompt="x", stop="fox", extra_body=kept)).choices[0].text == (
        "the fox"
    )


async def test_models(openai, fake):
    [model] = [model async for model in openai.models.list()]
    assert (model.id, model.object, model.owned_by, model.max_model_len) == ("tiny", "model", "tandem", 256)
    assert model.tandem["drafter"] == {"name": "tiny-drafter", "revision": "def", "num_speculative_tokens": 4}
    fake.model.ClearField("drafter")
    assert (await openai.models.retrieve("tiny")).tandem["drafter"] is None
    with pytest.raises(package.NotFoundError) as caught:
        await openai.models.retrieve("another/model")
    assert caught.value.code == "model_not_found"
