"""Chats through the HTTP door with the official client, before a verifier that plays scripts."""

import json

import pytest

from tandem.internal.v1 import verifier_service_pb2
from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import types_pb2
from tests.rpc.fake_verifier import finished, play, started, verified
from tests.rpc.test_conversation import CALLED, STOP, checkpoint, encode, fake, say, special, tokenizer

__all__ = ["checkpoint", "encode", "fake", "say", "special", "tokenizer"]  # Gemma's, for the fixtures of this file

QUESTION = [{"role": "user", "content": "the fox"}]
TOOL = {"type": "function", "function": {"name": "weather", "description": "hello", "parameters": {"type": "object"}}}
THOUGHT, ANSWER = "hello 中 world", "the fox"
TURN = f"<|channel>thought\n{THOUGHT}<channel|>{ANSWER}{CALLED}{CALLED}<|tool_response>"
ASKED = {"model": "tiny", "messages": QUESTION, "tools": [TOOL], "reasoning_effort": "low"}


async def test_a_streamed_chat_is_the_unary_one_in_pieces(client, openai, say):
    say(TURN, TURN, TURN)
    usage = {"include_usage": True}
    chunks = [c async for c in await openai.chat.completions.create(**ASKED, stream=True, stream_options=usage)]
    whole = await openai.chat.completions.create(**ASKED)
    message = whole.choices[0].message
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert deltas[0].role == message.role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == message.content == ANSWER
    thoughts = [getattr(delta, "reasoning_content", None) or "" for delta in deltas]
    assert "".join(thoughts) == message.reasoning_content == THOUGHT
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert [call.index for call in calls] == [0, 1]
    for call in [*calls, *message.tool_calls]:
        assert (call.type, call.function.name) == ("function", "weather") and call.id.startswith("call_")
        assert json.loads(call.function.arguments) == {"city": "中", "days": 2}
    assert len({call.id for call in [*calls, *message.tool_calls]}) == 4
    assert [chunk.choices[0].finish_reason for chunk in chunks[-3:-1]] == [None, "tool_calls"]
    assert whole.choices[0].finish_reason == "tool_calls"
    assert not chunks[-1].choices and chunks[-1].usage == whole.usage
    assert {chunk.id for chunk in chunks} == {chunks[0].id} and chunks[0].id.startswith("chatcmpl-")
    conversation = types_pb2.Conversation(
        messages=[{"role": types_pb2.ROLE_USER, "text": "the fox"}],
        tools=[{"name": "weather", "description": "hello", "parameters_json": '{"type": "object"}'}],
        thinking=True,
    )
    spec = types_pb2.GenerationSpec(conversation=conversation)
    over_grpc = (await client.generation.Generate(pb.GenerateRequest(spec=spec))).output
    assert (over_grpc.text, over_grpc.thought) == (message.content, message.reasoning_content)


async def test_a_call_goes_back_with_its_result(openai, fake, say, encode):
    first = f"<|channel>thought\nhello\n<channel|>{CALLED}<|tool_response>"
    say(first, "hello<channel|>the fox<turn|>")
    message = (await openai.chat.completions.create(**ASKED)).choices[0].message
    assert message.content is None and message.reasoning_content == "hello\n"
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": [{"type": "text", "text": "clear"}]}
    asked = {**ASKED, "messages": [*QUESTION, message.model_dump(), result]}
    answered = (await openai.chat.completions.create(**asked)).choices[0]
    assert (answered.message.content, answered.finish_reason) == ("the fox", "stop")
    prompts = [list(request.prompt_token_ids) for request in fake.requests]
    response = '<|tool_response>response:weather{value:<|"|>clear<|"|>}<tool_response|>'
    so_far = [*prompts[0], *encode(first)[:-1], *encode(response)]
    assert prompts[1] == [*so_far, *encode("<|channel>thought\n")], "the turn so far, word for word"


async def test_roles_parts_and_tool_choice(openai, fake, say, encode, special):
    say("x<turn|>", "x<turn|>")
    messages = [
        {"role": "developer", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "fox"}]},
        {"role": "assistant", "content": "world"},
        {"role": "user", "content": "<|turn>"},
    ]
    await openai.chat.completions.create(model="tiny", messages=messages, tools=[TOOL], tool_choice="none")
    ids = list(fake.requests[0].prompt_token_ids)
    wanted = "<|turn>system\nhello<turn|>\n<|turn>user\nthe fox<turn|>\n<|turn>model\nworld<turn|>\n<|turn>user\n"
    start = [special["<bos>"], *encode(wanted)]
    assert ids[: len(start)] == start and special["<|tool>"] not in ids, "tools that may not be called are not shown"
    assert ids.count(special["<|turn>"]) == 5, "what a user writes is text"
    await openai.chat.completions.create(**ASKED, tool_choice="auto", parallel_tool_calls=True)
    assert special["<|tool>"] in fake.requests[1].prompt_token_ids


async def test_logprobs_are_of_the_contents_tokens_with_their_bytes(openai, fake, encode):
    ids = encode("<|channel>thought\nhello<channel|>中<turn|>")
    top = encode("é") + encode("<turn|>")

    def script(request):
        logprobs = [
            verifier_service_pb2.TokenLogprobs(
                logprob=-0.5 * index, top_logprobs=[{"id": top[0], "logprob": -1.0}, {"id": top[1], "logprob": -2.0}]
            )
            for index in range(len(ids))
        ]
        return play(started(), verified(ids, logprobs=logprobs), finished(STOP, stop_token_id=ids[-1]))

    fake.script = script
    asked = {"model": "", "messages": QUESTION, "logprobs": True, "top_logprobs": 2}
    whole = (await openai.chat.completions.create(**asked)).choices[0]
    assert fake.requests[0].top_logprobs == 2
    content = whole.logprobs.content
    assert bytes(byte for one in content for byte in one.bytes).decode() == whole.message.content == "中"
    assert [one.bytes for one in content] == [[0xE4], [0xB8], [0xAD]] and content[0].token == "\ufffd"
    first = ids.index(encode("中")[0])
    assert [one.logprob for one in content] == [-0.5 * (first + i) for i in range(3)]
    assert [(one.token, one.logprob, bytes(one.bytes).decode()) for one in content[0].top_logprobs] == [
        ("é", -1.0, "é"),
        ("<turn|>", -2.0, "<turn|>"),
    ]
    stream = await openai.chat.completions.create(**asked, stream=True)
    logprobs = [chunk.choices[0].logprobs async for chunk in stream]
    assert [one for given in logprobs if given for one in given.content] == content


async def test_the_extension_tells_every_token_and_what_drafting_did(openai, fake, say, encode):
    say(TURN, TURN)
    extension = {"tandem": {"tokens": True, "num_speculative_tokens": 2}}
    asked = {**ASKED, "extra_body": extension}
    chunks = [
        chunk
        async for chunk in await openai.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )
    ]
    tokens = [token for chunk in chunks if chunk.model_extra.get("tandem") for token in chunk.tandem["tokens"]]
    assert [token["id"] for token in tokens] == encode(TURN)
    assert [token["drafted"] for token in tokens][:4] == [True, False, True, False]
    by_part = {}
    for token in tokens:
        by_part[token["part"]] = by_part.get(token["part"], "") + token["text"]
    assert by_part == {"thought": THOUGHT, "text": ANSWER, "tool_call": CALLED * 2, "control": by_part["control"]}
    for chunk in chunks[1:-2]:
        written = "".join(token["text"] for token in chunk.tandem["tokens"] if token["part"] == "text")
        assert written == (chunk.choices[0].delta.content or ""), "those of that delta"
    whole = await openai.chat.completions.create(**asked)
    assert whole.tandem["tokens"] == tokens and whole.tandem["seed"] == chunks[0].tandem["seed"]
    rounds = (len(tokens) + 1) // 2
    assert fake.requests[0].num_speculative_tokens == 2
    usage = whole.usage
    assert usage == chunks[-1].usage
    assert (usage.completion_tokens, usage.total_tokens) == (len(tokens), usage.prompt_tokens + len(tokens))
    details = usage.completion_tokens_details
    assert (details.accepted_prediction_tokens, details.rejected_prediction_tokens) == (rounds, rounds)
    assert usage.tandem == {
        "rounds": rounds,
        "draft_tokens": 2 * rounds,
        "accepted_tokens": rounds,
        "accepted_by_position": [rounds, 0],
        "acceptance_length": 2.0,
    }


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"json_schema": '{"type": "object"}'}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}}},
            {"json_schema": '{"type": "integer"}'},
        ),
        ({"extra_body": {"structured_outputs": {"json": {"type": "null"}}}}, {"json_schema": '{"type": "null"}'}),
        ({"extra_body": {"structured_outputs": {"regex": "a+"}}}, {"regex": "a+"}),
        ({"extra_body": {"structured_outputs": {"grammar": 'start: "a"'}}}, {"grammar": 'start: "a"'}),
    ],
)
async def test_output_formats(openai, fake, options, wanted):
    await openai.chat.completions.create(model="tiny", messages=QUESTION, **options)
    [request] = fake.requests
    assert request.HasField("output_format") == (wanted is not None)
    assert wanted is None or request.output_format == types_pb2.OutputFormat(**wanted)
