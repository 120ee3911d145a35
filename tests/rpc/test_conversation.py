"""Conversations with tools and thoughts over real sockets, before a verifier that plays scripts."""

import asyncio
import json

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from tandem.core.errors import Draining
from tandem.gateway.tokenizer import TextTokenizer
from tandem.rpc.errors import STATUS_DETAILS_KEY
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import types_pb2
from tests.rpc.fake_verifier import FakeVerifier, finished, play, serving, started, verified
from tests.rpc.test_client_commands import tandem
from tests.unit.gateway.conftest import GEMMA_TEMPLATE, byte_fallback_tokenizer, conversation, save_checkpoint

STOP, LENGTH, TOOL_CALLS = (
    types_pb2.FINISH_REASON_STOP,
    types_pb2.FINISH_REASON_LENGTH,
    types_pb2.FINISH_REASON_TOOL_CALLS,
)
WEATHER = types_pb2.Tool(name="weather", description="hello", parameters_json='{"type": "object"}')
CALLED = '<|tool_call>call:weather{city:<|"|>中<|"|>,days:2}<tool_call|>'
QUESTION = ("user", "the fox")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """As Gemma's: its kind of tokenizer, its special tokens, its layout."""
    folder = tmp_path_factory.mktemp("gemma") / "target"
    return save_checkpoint(folder, byte_fallback_tokenizer(), GEMMA_TEMPLATE)


@pytest.fixture(scope="session")
def tokenizer(checkpoint):
    return TextTokenizer.load(checkpoint)


@pytest.fixture
def special(tokenizer):
    return tokenizer.special_tokens


@pytest.fixture
def fake(special):
    fake = FakeVerifier()
    fake.model.eos_token_ids[:] = [special[name] for name in ("<eos>", "<turn|>", "<|tool_response>")]
    fake.model.context_length = 1024
    return fake


@pytest.fixture
def encode(tokenizer, special):
    """Ids of a turn as it is written, special tokens spelled."""

    def encode(written):
        ids, start = [], 0
        for found in tokenizer.special_pattern.finditer(written):
            ids += [*tokenizer.encode(written[start : found.start()]), special[found[0]]]
            start = found.end()
        return ids + tokenizer.encode(written[start:])

    return encode


@pytest.fixture
def say(fake, encode):
    """Makes the model write one turn after the other, two tokens a round, each turn ended by its last token."""

    def say(*turns):
        scripts = [encode(turn) for turn in turns]

        def script(request):
            ids = scripts[len(fake.requests) - 1]
            rounds = [verified(ids[i : i + 2], 1, 2) for i in range(0, len(ids), 2)]
            return play(started(), *rounds, finished(STOP, stop_token_id=ids[-1]))

        fake.script = script

    return say


async def ask(client, given, **fields):
    """The answer as one message, the same as it is streamed."""
    spec = types_pb2.GenerationSpec(conversation=given, **fields)
    return await client.generation.Generate(pb.GenerateRequest(spec=spec))


async def stream(client, given, **fields):
    spec = types_pb2.GenerationSpec(conversation=given, **fields)
    events = [e async for e in client.generation.StreamGenerate(pb.StreamGenerateRequest(spec=spec))]
    return [event.delta for event in events[1:-1]], events[-1].finished


async def test_thoughts_text_and_calls_have_fields_of_their_own(client, say):
    turn = f"<|channel>thought\nhello 中 world<channel|>the fox{CALLED}{CALLED}<|tool_response>"
    say(turn, turn)
    given = conversation(QUESTION, tools=[WEATHER], thinking=True)
    options = {"output": {"token_ids": True}}
    deltas, last = await stream(client, given, **options)
    answer = await ask(client, given, **options)
    output = answer.output
    assert (output.thought, output.text) == ("hello 中 world", "the fox")
    assert [call.name for call in output.tool_calls] == ["weather"] * 2
    assert json.loads(output.tool_calls[0].arguments_json) == {"city": "中", "days": 2}
    assert (last.reason, answer.finished.reason) == (TOOL_CALLS, TOOL_CALLS)
    assert last.usage.num_output_tokens == output.num_tokens == len(output.tokens)
    assert "".join(delta.thought for delta in deltas) == output.thought
    assert "".join(delta.text for delta in deltas) == output.text
    assert [call for delta in deltas for call in delta.tool_calls] == list(output.tool_calls)
    assert [token for delta in deltas for token in delta.tokens] == list(output.tokens)
    thoughts = [token.text for token in output.tokens if token.part == types_pb2.OUTPUT_PART_THOUGHT]
    assert "".join(thoughts) == output.thought
    assert len([delta for delta in deltas if delta.thought]) > 2, "streamed as they come"


async def test_a_call_begun_by_one_verifier_is_ended_by_another(
    open_client, fake, encode, verifier, verifier_address, tmp_path
):
    ids = encode(f"the fox{CALLED}<|tool_response>")

    async def script(request):
        yield started()
        if not request.output_token_ids:
            yield verified(ids[: len(ids) // 2])
            raise Draining("the verifier stops")
        yield verified(ids[len(request.output_token_ids) :])
        yield finished(STOP, stop_token_id=ids[-1])

    fake.script = script
    other = f"unix:{tmp_path}/other.sock"
    async with serving(fake, other), open_client(verifier=f"{verifier_address},{other}") as client:
        await client.wait_for_health(health_pb2.HealthCheckResponse.SERVING)
        answer = await ask(client, conversation(QUESTION, tools=[WEATHER]))
    assert len(fake.requests) == 2
    assert (answer.output.text, answer.finished.reason) == ("the fox", TOOL_CALLS)
    assert json.loads(answer.output.tool_calls[0].arguments_json) == {"city": "中", "days": 2}


async def test_call_result_answer(client, fake, say, encode):
    """What a client gets it may send back as it is, and the model goes on with the same turn."""
    first = f"<|channel>thought\nhello\n<channel|>{CALLED}<|tool_response>"
    say(first, "hello<channel|>the fox<turn|>", "world<turn|>")
    given = conversation(QUESTION, tools=[WEATHER], thinking=True)
    called = await ask(client, given)
    output = called.output
    given.messages.add(
        role=types_pb2.ROLE_MODEL, text=output.text, thought=output.thought, tool_calls=output.tool_calls
    )
    result = types_pb2.ToolResult(name="weather", json='{"sky": "clear"}')
    given.messages.add(role=types_pb2.ROLE_TOOL, tool_results=[result])
    answered = await ask(client, given)
    assert (answered.output.text, answered.finished.reason) == ("the fox", STOP)
    prompts = [list(request.prompt_token_ids) for request in fake.requests]
    response = '<|tool_response>response:weather{sky:<|"|>clear<|"|>}<tool_response|>'
    so_far = [*prompts[0], *encode(first)[:-1], *encode(response)]
    assert prompts[1] == [*so_far, *encode("<|channel>thought\n")], "the turn so far, word for word"
    assert answered.output.thought == "hello", "begun by the prompt"
    given.messages.add(role=types_pb2.ROLE_MODEL, text=answered.output.text, thought=answered.output.thought)
    given.messages.add(role=types_pb2.ROLE_USER, text="hello")
    last = await ask(client, given)
    assert last.output.text == "world"
    prompt = list(fake.requests[2].prompt_token_ids)
    assert prompt == [
        *prompts[0],
        *encode(f"{CALLED}{response}the fox<turn|>\n<|turn>user\nhello<turn|>\n<|turn>model\n"),
    ], "without the thought of a turn that is past"


async def test_a_turn_that_the_model_does_not_end_with_calls_ends_as_any_text(client, say, encode):
    say("the fox<|tool_response>", "<|tool_call>broken<tool_call|><|tool_response>", f"{CALLED}the", f"{CALLED}x")
    given = conversation(QUESTION, tools=[WEATHER])
    assert (await ask(client, given)).finished.reason == STOP
    malformed = await ask(client, given)
    assert (malformed.output.text, malformed.finished.reason) == ("<|tool_call>broken<tool_call|>", STOP)
    own = await ask(client, given, stopping={"stop": ["the"]})
    assert (own.finished.reason, own.finished.stop_text, len(own.output.tool_calls)) == (STOP, "the", 1)
    assert (await ask(client, given, stopping={"stop_token_ids": encode("x")})).finished.reason == STOP


async def test_calls_of_a_text_that_breaks_off(client, fake, encode):
    ids = encode(f"{CALLED}<|tool_call>call:weather{{")
    fake.script = lambda request: play(started(), verified(ids), finished(LENGTH))
    answer = await ask(client, conversation(QUESTION))
    assert (answer.finished.reason, len(answer.output.tool_calls)) == (LENGTH, 1)
    assert answer.output.text == "<|tool_call>call:weather{"


async def test_other_prompts_keep_their_raw_text(client, fake, encode):
    ids = encode(f"<|channel>thought\nhello<channel|>the{CALLED}")
    fake.script = lambda request: play(started(), verified(ids), finished(LENGTH))
    for prompt in ({"text": "the"}, {"token_ids": {"ids": [70]}}):
        spec = types_pb2.GenerationSpec(output={"token_ids": True}, **prompt)
        output = (await client.generation.Generate(pb.GenerateRequest(spec=spec))).output
        assert output.text == "thought\nhellothecall:weather{city:中,days:2}"
        assert not output.thought and not output.tool_calls and not any(token.part for token in output.tokens)


async def test_count_tokens_counts_tools_and_thinking(client, fake):
    call = {"role": types_pb2.ROLE_MODEL, "tool_calls": [{"name": "weather"}]}
    result = {"role": types_pb2.ROLE_TOOL, "tool_results": [{"name": "weather", "text": "the"}]}
    turns = [QUESTION, types_pb2.Message(**call), types_pb2.Message(**result)]
    counts = []
    for given in (conversation(QUESTION), conversation(*turns, tools=[WEATHER], thinking=True)):
        spec = types_pb2.GenerationSpec(conversation=given)
        counts.append((await client.generation.CountTokens(pb.CountTokensRequest(spec=spec))).num_tokens)
        await ask(client, given)
        assert counts[-1] == len(fake.requests[-1].prompt_token_ids)
    assert counts[1] > counts[0]


async def test_a_bad_tool_is_refused_with_its_path(client, fake):
    given = conversation(QUESTION, tools=[WEATHER, types_pb2.Tool(name="x", parameters_json="[]")])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(client, given)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = status_pb2.Status.FromString(caught.value.trailing_metadata()[STATUS_DETAILS_KEY]).details
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in details)
    assert bad.field_violations[0].field == "spec.conversation.tools[1].parameters_json"
    assert not fake.requests


async def test_long_conversations_are_laid_out_beside_the_event_loop(client):
    turns = [QUESTION, ("model", "hello"), *[("user", "the"), ("model", "fox")] * 2000, QUESTION]
    long = asyncio.create_task(ask(client, conversation(*turns)))
    await asyncio.sleep(0)
    num_answered = 0
    short = types_pb2.GenerationSpec(text="the")
    while not long.done():
        await client.generation.CountTokens(pb.CountTokensRequest(spec=short))
        num_answered += 1
    assert num_answered > 5
    with pytest.raises(grpc.aio.AioRpcError, match="fit with room"):
        long.result()


async def test_chat_asks_for_thinking_and_prints_the_answer(client, fake, say, encode):
    say("<|channel>thought\nhello<channel|>the fox<turn|>")
    code, out, _ = await tandem("chat", f"--server={client.address}", "--system=the", "--thinking=true", stdin="fox\n")
    assert (code, out) == (0, "the fox\n")
    prompt = encode("<bos><|turn>system\n<|think|>\nthe<turn|>\n<|turn>user\nfox<turn|>\n<|turn>model\n")
    assert list(fake.requests[0].prompt_token_ids) == prompt
