"""Bodies that are refused by the name of their field, and fields that are accepted and change nothing."""

import json

import httpx2
import pytest

from tandem.gateway.http.errors import param_of
from tandem.rpc.conversion import RequestDefaults, resolve_request
from tests.rpc.fake_verifier import finished, play, started

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "the fox"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}


@pytest.fixture
async def post(client, fake):
    """Posts a body; the fake verifier reads requests as the real one does."""
    defaults = RequestDefaults(
        context_length=256, vocabulary_size=512, eos_token_ids=frozenset({1}), num_speculative_tokens=4
    )

    def script(request):
        resolve_request(request, defaults)
        return play(started(seed=7), finished())

    fake.script = script
    async with httpx2.AsyncClient(base_url=client.url) as http:

        async def post(path, body, **headers):
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            return await http.post(path, content=content, headers={"content-type": "application/json", **headers})

        yield post


def chat(*messages, **fields):
    return CHAT, {"messages": list(messages or [USER]), **fields}


def completion(**fields):
    return COMPLETIONS, {"prompt": "the fox", **fields}


REFUSED = {
    "no JSON": ((COMPLETIONS, b"{"), None, "JSON"),
    "no object": ((COMPLETIONS, b"[]"), None, "object"),
    "half a surrogate pair": ((COMPLETIONS, b'{"prompt":"\\ud800"}'), None, "JSON"),
    "deep nesting": ((COMPLETIONS, b'{"prompt":' + b"[" * 100_000), None, "JSON"),
    "no number": ((COMPLETIONS, b'{"prompt":"x","temperature":NaN}'), "temperature", "finite"),
    "no prompt": ((COMPLETIONS, {}), "prompt", "required"),
    "two prompts": (completion(prompt=["x", "y"]), "prompt", "one prompt"),
    "two prompts of ids": (completion(prompt=[[1], [2]]), "prompt", "one prompt"),
    "empty prompt": (completion(prompt=[]), "prompt", "at least one token"),
    "prompt of other things": (completion(prompt={"x": 1}), "prompt", "must be"),
    "long prompt": (completion(prompt="the fox " * 300), "prompt", "tokens"),
    "unknown field": (completion(foo=1), "foo", "not known"),
    "field of the other path": (completion(messages=[]), "messages", "not known"),
    "n": (completion(n=2), "n", "several requests|as many"),
    "best_of": (completion(best_of=2), "best_of", "several requests"),
    "echo": (completion(echo=True), "echo", "gRPC"),
    "suffix": (completion(suffix="x"), "suffix", "continued at its end"),
    "store": (completion(store=True), "store", "nothing is kept"),
    "a number as text": (completion(top_k="5"), "top_k", "integer"),
    "top_k": (completion(top_k=2**40), "top_k", "less than"),
    "seed": (completion(seed=-1), "seed", "must be"),
    "temperature": (completion(temperature=1e300), "temperature", "0 and 100"),
    "top_p": (completion(top_p=0), "top_p", "above 0"),
    "presence_penalty": (completion(presence_penalty=3), "presence_penalty", "-2 and 2"),
    "logit_bias": (completion(logit_bias={"x": 1}), "logit_bias", "token id"),
    "logit_bias's range": (completion(logit_bias={"511": 101}), "logit_bias", "100"),
    "logit_bias's token": (completion(logit_bias={"512": 1}), "logit_bias", "0..511"),
    "logprobs": (completion(logprobs=21), "logprobs", "20"),
    "max_tokens": (completion(max_tokens=8193), "max_tokens", "at most 8192"),
    "min_tokens": (completion(min_tokens=3, max_tokens=2), "min_tokens", "max_tokens"),
    "stop": (completion(stop=["x"] * 17), "stop", "at most 16"),
    "one stop": (completion(stop=["x", ""]), "stop[1]", "1..256"),
    "cache_salt": (completion(cache_salt="x" * 129), "cache_salt", "at most 128"),
    "stream_options": (completion(stream_options={"include_usage": True}), "stream_options", "stream: true"),
    "obfuscation": (
        completion(stream=True, stream_options={"include_obfuscation": True}),
        "stream_options.include_obfuscation",
        "False",
    ),
    "tandem": (completion(tandem={"foo": 1}), "tandem.foo", "not known"),
    "tandem's K": (completion(tandem={"num_speculative_tokens": -1}), "tandem.num_speculative_tokens", "0 or positive"),
    "guided": (completion(guided_regex="a"), "guided_regex", "structured_outputs"),
    "a number of too many digits": (
        (COMPLETIONS, b'{"prompt":"x","structured_outputs":{"json":{"a":' + b"9" * 5000 + b"}}}"),
        None,
        "JSON",
    ),
    "two formats": (completion(structured_outputs={"regex": "a", "json": {}}), "structured_outputs", "exactly one"),
    "empty format": (completion(structured_outputs={"regex": ""}), "structured_outputs.regex", "empty"),
    "no messages": (chat(messages=[]), "messages", "at least 1"),
    "role": (chat({"role": "someone", "content": "x"}), "messages[0].role", "must be"),
    "function messages": (chat({"role": "function", "name": "f", "content": "x"}), "messages[0].role", "must be"),
    "names": (chat({**USER, "name": "me"}), "messages[0].name", "into the content"),
    "images": (
        chat(USER, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
        "messages[1].content[0].type",
        "only text",
    ),
    "a user's calls": (chat({**USER, "tool_calls": [CALL]}), "messages[0].tool_calls", "only the model"),
    "a user's thoughts": (chat({**USER, "reasoning_content": "x"}), "messages[0].reasoning_content", "only the model"),
    "a result without its call": (
        chat(USER, {"role": "tool", "content": "x", "tool_call_id": "c1"}),
        "messages[1].tool_call_id",
        "no message before",
    ),
    "a result without an id": (
        chat(USER, CALLED, {"role": "tool", "content": "x"}),
        "messages[2].tool_call_id",
        "tool",
    ),
    "a result too late": (
        chat(USER, CALLED, USER, {"role": "tool", "content": "x", "tool_call_id": "c1"}),
        "messages[3].tool_call_id",
        "did not call",
    ),
    "a call's arguments": (
        chat(USER, {**CALLED, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "["}}]}),
        "messages[1].tool_calls[0].function.arguments",
        "JSON",
    ),
    "a tool's name": (
        chat(tools=[{"type": "function", "function": {"name": "a b"}}]),
        "tools[0].function.name",
        "1..128",
    ),
    "a tool's parameters": (
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": []}}]),
        "tools[0].function.parameters",
        "must be",
    ),
    "strict tools": (
        chat(tools=[{"type": "function", "function": {"name": "f", "strict": True}}]),
        "tools[0].function.strict",
        "check them",
    ),
    "other tools": (chat(tools=[{"type": "web_search"}]), "tools[0].type", "function tools"),
    "required calls": (chat(tool_choice="required"), "tool_choice", "auto or none"),
    "a named call": (
        chat(tool_choice={"type": "function", "function": {"name": "f"}}),
        "tool_choice",
        "auto or none",
    ),
    "one call at a time": (chat(parallel_tool_calls=False), "parallel_tool_calls", "as many"),
    "functions": (chat(functions=[]), "functions", "send tools"),
    "audio": (chat(modalities=["audio"]), "modalities[0]", "must be"),
    "prediction": (chat(prediction={}), "prediction", "drafter"),
    "top_logprobs alone": (chat(top_logprobs=3), "top_logprobs", "logprobs: true"),
    "two lengths": (chat(max_tokens=3, max_completion_tokens=4), "max_tokens", "one of them"),
    "two minds": (
        chat(reasoning_effort="none", chat_template_kwargs={"enable_thinking": True}),
        "reasoning_effort",
        "enable_thinking",
    ),
    "thinking of who cannot": (chat(reasoning_effort="high"), "reasoning_effort", "no thinking"),
    "a schema's absence": (
        chat(response_format={"type": "json_schema"}),
        "response_format.json_schema",
        "must be given",
    ),
    "a schema's surplus": (
        chat(response_format={"type": "text", "json_schema": {"name": "x", "schema": {}}}),
        "response_format.json_schema",
        "only there",
    ),
    "other formats": (chat(response_format={"type": "xml"}), "response_format.type", "must be"),
}


@pytest.mark.parametrize("row", REFUSED)
async def test_what_cannot_be_served_is_refused_by_name(post, fake, row):
    (path, body), param, advice = REFUSED[row]
    response = await post(path, body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_request", param)
    assert any(word in error["message"] for word in advice.split("|")), error["message"]
    assert param is None or error["message"].startswith(f"{param}: ")
    assert "the fox the fox" not in response.text, "what a client wrote is not repeated"


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me", "safety_identifier": "x", "prompt_cache_key": "y", "metadata": {"a": "b"}},
        {"store": False, "service_tier": "auto", "n": 1, "stream_options": None, "stop": None, "tandem": {}},
        {"temperature": None, "top_p": None, "logit_bias": None, "max_tokens": None, "seed": None, "model": None},
    ],
)
async def test_what_changes_nothing_is_accepted(post, fields):
    for path, body in (chat(**fields), completion(**fields)):
        response = await post(path, body)
        assert response.status_code == 200, response.text


async def test_a_request_id_is_the_clients_where_it_can_be_shown(post, fake):
    response = await post(*completion(), **{"x-request-id": "mine"})
    assert response.headers["x-request-id"] == fake.requests[0].request_id == "mine"
    assert response.json()["id"] == "cmpl-mine"
    refused = await post(*completion(), **{"x-request-id": "x" * 129})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-request-id")
    assert len(refused.headers["x-request-id"]) == 32


def test_every_field_of_a_spec_has_a_name_over_http():
    """Whatever the gateway or a verifier may find wrong: its path is one that clients can find in their body."""
    assert param_of("spec.conversation.messages[3].tool_results[0].json") == "messages[3].content"
    assert param_of("spec.conversation") == "messages"
    assert param_of("spec.stopping.include_stop") == "include_stop_str_in_output"
    assert param_of("spec.output_format.json_schema") == "response_format"
    assert param_of("spec.model") == "model"
