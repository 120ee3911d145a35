"""The HTTP door of real processes with the demo pair: the official client gets what gRPC gives."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from openai import OpenAI

from tandem.v1 import generation_service_pb2 as pb
from tandem.v1 import generation_service_pb2_grpc, types_pb2
from tests.e2e.conftest import Up

PROMPT = "def read_lines(path):"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["file", "folder"]}, "size": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "size"],
    "additionalProperties": False,
}
TOKENS = {"tandem": {"tokens": True}}


@pytest.fixture
def served():
    up = Up("--http-listen=127.0.0.1:0")
    try:
        url = up.wait_for(r"^OpenAI's API is on (\S+)$")[1]
        with OpenAI(base_url=url, api_key="none", max_retries=0) as openai:
            yield up, openai
    finally:
        up.close()


def over_grpc(up, **fields):
    spec = types_pb2.GenerationSpec(output={"token_ids": True}, **fields)
    with grpc.insecure_channel(up.address) as channel:
        stub = generation_service_pb2_grpc.GenerationServiceStub(channel)
        return stub.Generate(pb.GenerateRequest(spec=spec)).output


def test_text_formats_figures_many_streams_and_the_end(served):
    up, openai = served
    messages = [{"role": "user", "content": PROMPT}]
    stream = openai.chat.completions.create(
        model="target", messages=messages, seed=7, max_completion_tokens=40, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    *chunks, last = stream
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    conversation = {"messages": [{"role": types_pb2.ROLE_USER, "text": PROMPT}]}
    options = {"sampling": {"seed": 7}, "stopping": {"max_tokens": 40}}
    assert text == over_grpc(up, conversation=conversation, **options).text != ""
    usage = last.usage
    assert usage.completion_tokens == usage.tandem["accepted_tokens"] + usage.tandem["rounds"] + 1
    assert usage.tandem["acceptance_length"] > 1.3
    assert usage.tandem["accepted_tokens"] == sum(usage.tandem["accepted_by_position"])

    schema = {"type": "json_schema", "json_schema": {"name": "entry", "schema": SCHEMA, "strict": True}}
    stream = openai.chat.completions.create(
        model="target", messages=messages, response_format=schema, max_completion_tokens=200, stream=True
    )
    answer = json.loads("".join(chunk.choices[0].delta.content or "" for chunk in stream))
    assert answer["name"] in ("file", "folder") and 0 <= answer["size"] <= 99 and len(answer) == 2

    def ids(seed):
        asked = {"model": "target", "prompt": PROMPT, "seed": seed, "max_tokens": 24}
        stream = openai.completions.create(**asked, stream=True, extra_body=TOKENS)
        return [token["id"] for chunk in stream for token in (chunk.model_extra.get("tandem") or {}).get("tokens", ())]

    with ThreadPoolExecutor(12) as threads:
        streamed = list(threads.map(ids, range(12)))
    for seed, found in enumerate(streamed):
        whole = over_grpc(up, text=PROMPT, sampling={"seed": seed}, stopping={"max_tokens": 24})
        assert found == [token.id for token in whole.tokens], "nothing lost, all in order"

    long = openai.completions.create(
        model="target", prompt=PROMPT, max_tokens=300, stream=True, extra_body={"ignore_eos": True}
    )
    next(long)
    up.process.send_signal(signal.SIGINT)
    assert [chunk.choices[0].finish_reason for chunk in long][-1] == "length", "what runs may end"
    assert up.wait() == 0
