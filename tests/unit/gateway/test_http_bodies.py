"""Whatever a body holds, it becomes a spec or is refused by name: there is no third way."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.gateway.http.chat_request import ChatRequest, Message, Tool
from tandem.gateway.http.completion_request import CompletionRequest
from tandem.gateway.http.errors import Refusal
from tandem.gateway.http.request_body import read_request
from tandem.v1 import types_pb2

KINDS = {"chat": ChatRequest, "completion": CompletionRequest}
EDGES = [
    0,
    -1,
    1e300,
    True,
    "",
    "x",
    *(sign * 2**bits + by for sign in (1, -1) for bits in (31, 63) for by in (-1, 0, 1)),
]
NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.booleans()
NAMES = st.sampled_from(
    sorted(
        {
            field.alias or name
            for kind in (ChatRequest, CompletionRequest, Message, Tool)
            for name, field in kind.model_fields.items()
        }
        | {"include_usage", "schema", "json_schema", "json", "regex", "id", "text", "name", "arguments", "tokens"}
    )
)
VALUES = st.recursive(
    st.none()
    | NUMBERS
    | st.text(max_size=8)
    | st.sampled_from(["user", "tool", "text", "json_schema", "c1", "function"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | NAMES, inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"])})
    | st.dictionaries(NAMES, VALUES, max_size=5)
    | st.just({"role": "user", "content": "x"}),
    max_size=3,
)


def check(kind, fields):
    try:
        spec = read_request(KINDS[kind], json.dumps(fields).encode()).spec("r")
    except Refusal as refusal:
        error = refusal.body()["error"]
        assert refusal.status == 400 and error["message"] and len(error["message"]) <= 500
        assert error["param"] is None or error["message"].startswith(error["param"])
    else:
        assert types_pb2.GenerationSpec.FromString(spec.SerializeToString()) == spec and spec.WhichOneof("prompt")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", EDGES, ids=str)
def test_every_field_with_every_edge(kind, value):
    required = {"chat": {"messages": [{"role": "user", "content": "x"}]}, "completion": {"prompt": "x"}}[kind]
    for name in KINDS[kind].model_fields:
        for given_value in (value, [value], {"1": value}):
            check(kind, {**required, name: given_value})


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=400, deadline=None)
@given(fields=st.dictionaries(NAMES, VALUES, max_size=5), messages=MESSAGES, prompt=VALUES | st.text())
def test_any_object(kind, fields, messages, prompt):
    required = {"chat": {"messages": messages}, "completion": {"prompt": prompt}}[kind]
    check(kind, {**fields, **required})


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=64))
def test_any_bytes(kind, body):
    with pytest.raises(Refusal):
        read_request(KINDS[kind], body)
