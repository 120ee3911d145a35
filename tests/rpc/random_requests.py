"""Random requests with the answer that each must get. A new field of the contract is a new entry of `FIELDS`."""

from dataclasses import dataclass, field
from math import inf, nan
from typing import Any

import grpc
from hypothesis import strategies as st

from tandem.v1 import types_pb2

# Of the replica that the requests are for.
VOCABULARY_SIZE = 512
CONTEXT_LENGTH = 1024
KV_TOKENS = 960  # less than a context: a request can ask for more than there is
API_KEY = "a-key-of-tests"
EOS_TOKEN_IDS = (1, 3)

SMALLEST_MAX_TOKENS, LARGEST_MAX_TOKENS = 3, 8
CODES = grpc.StatusCode


@dataclass(frozen=True)
class Refusal:
    """A row of the error table."""

    code: grpc.StatusCode
    reason: str
    field: str | None = None  # that BadRequest names


@dataclass(frozen=True, eq=False)
class Bad:
    """A value that is refused, and the path that the refusal names, if it is not the field's own."""

    value: Any
    path: str | None = None
    refusal: Refusal | None = None  # of another row than INVALID_ARGUMENT


@dataclass(frozen=True, eq=False)
class Field:
    """One field of a spec."""

    path: str
    valid: st.SearchStrategy[Any] = field(default_factory=st.nothing)  # nothing: every request has it another way
    invalid: tuple[Bad, ...] = ()


@dataclass(frozen=True)
class RandomRequest:
    """A request and what must come of it."""

    spec: types_pb2.GenerationSpec
    api_key: str | None = API_KEY
    refusal: Refusal | None = None
    is_dropped: bool = False  # its client goes away after the first message


def bad(*values: Any, path: str | None = None) -> tuple[Bad, ...]:
    """Values that are all refused under one path."""
    return tuple(Bad(value, path) for value in values)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32)


TEXTS = st.text(max_size=12) | st.sampled_from(
    ["def hello", "the quick brown fox", "<|turn>user<eos>", "中文 😀 é", ""]
)
TOKEN_IDS = st.integers(0, VOCABULARY_SIZE - 1)
SYSTEM = {"role": 1, "text": "obey"}
CALLED = (
    {"role": 2, "text": "look"},
    {"role": 3, "thought": "hm", "tool_calls": [{"name": "find", "arguments_json": '{"what": "<turn|>", "n": [1]}'}]},
    {"role": 4, "tool_results": [{"name": "find", "json": '{"found": null}'}]},
)
MESSAGES = st.lists(
    st.builds(dict, role=st.sampled_from([2, 3]), text=TEXTS)
    | st.builds(dict, role=st.just(3), text=TEXTS, thought=TEXTS),
    min_size=1,
    max_size=3,
)
TOOL = {"name": "find", "description": "finds <|tool>", "parameters_json": '{"type": "object"}'}


def conversations(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages), **fields}


USER = {"role": 2, "text": "x"}

PROMPTS = (
    Field("text", TEXTS, bad("☃" * 1500)),
    Field(
        "token_ids.ids",
        st.lists(TOKEN_IDS, min_size=1, max_size=40),
        bad([], [VOCABULARY_SIZE], [5, -1], [7] * CONTEXT_LENGTH, path="token_ids"),
    ),
    Field(
        "conversation",
        st.fixed_dictionaries(
            {
                "messages": MESSAGES
                | MESSAGES.map(lambda messages: [SYSTEM, *messages])
                | MESSAGES.map(lambda messages: [*CALLED, *messages])
                | st.just(list(CALLED))
            },
            optional={"thinking": st.booleans(), "tools": st.just([TOOL])},
        ),
        (
            *bad(conversations(), path="conversation.messages"),
            *bad(conversations({"text": "x"}), conversations({"role": 9}), path="conversation.messages[0].role"),
            *bad(conversations(USER, SYSTEM)),
            *bad(conversations(USER | {"thought": "x"}), path="conversation.messages[0].thought"),
            *bad(conversations(USER, CALLED[2]), path="conversation.messages[1].tool_results[0].name"),
            *bad(conversations(USER, tools=[TOOL, TOOL]), path="conversation.tools"),
            *bad(conversations(USER, tools=[TOOL | {"name": "a b"}]), path="conversation.tools[0].name"),
            *bad(
                conversations(USER, tools=[TOOL | {"parameters_json": "[" * 99}]),
                path="conversation.tools[0].parameters_json",
            ),
        ),
    ),
)
FIELDS = (
    Field("request_id", st.from_regex(r"[a-z0-9 -]{1,20}", fullmatch=True), bad("x" * 129, "two\nlines")),
    Field("model", invalid=(Bad("another", refusal=Refusal(CODES.NOT_FOUND, "MODEL_NOT_FOUND")),)),
    Field("sampling.temperature", numbers(0, 2), bad(-0.5, 100.5, nan, inf)),
    Field("sampling.top_p", numbers(0.125, 1), bad(0.0, -0.5, 1.5, nan)),
    Field("sampling.top_k", st.integers(0, 600), bad(-1)),
    Field("sampling.min_p", numbers(0, 1), bad(-0.5, 1.5, nan)),
    Field("sampling.seed", st.integers(0, 2**63 - 1), bad(-1, -(2**63))),
    Field("sampling.repetition_penalty", numbers(0.5, 2), bad(0.0, -1.0, 100.5, nan)),
    Field("sampling.presence_penalty", numbers(-2, 2), bad(-2.5, 2.5, nan)),
    Field("sampling.frequency_penalty", numbers(-2, 2), bad(-2.5, inf)),
    Field(
        "sampling.logit_bias",
        st.dictionaries(TOKEN_IDS, numbers(-100, 100), max_size=3),
        bad({-1: 0.0}, {VOCABULARY_SIZE: 0.0}, {5: 100.5}, {5: nan}),
    ),
    Field(
        "stopping.max_tokens",
        st.integers(SMALLEST_MAX_TOKENS, LARGEST_MAX_TOKENS),
        (*bad(0, -5, 8193), Bad(8192, refusal=Refusal(CODES.RESOURCE_EXHAUSTED, "KV_CACHE_FULL"))),
    ),
    Field("stopping.min_tokens", st.integers(0, SMALLEST_MAX_TOKENS), bad(-1, 9000)),
    Field(
        "stopping.stop",
        st.lists(st.text("abcdehlotr <>", min_size=1, max_size=2), max_size=3),
        (*bad(["x"] * 17), *bad(["x", "", "y"], ["x", "y" * 257], path="stopping.stop[1]")),
    ),
    Field("stopping.stop_token_ids", st.lists(TOKEN_IDS, max_size=32), bad([*range(33)], [VOCABULARY_SIZE], [5, -1])),
    Field("stopping.ignore_eos", st.booleans()),
    Field("stopping.include_stop", st.booleans()),
    Field("output.token_ids", st.booleans()),
    Field("output.top_logprobs", st.integers(0, 20), bad(-1, 21)),
    Field("output.prompt_logprobs", st.booleans()),
    Field("speculation.num_speculative_tokens", st.integers(0, 20), bad(-1)),
    Field(
        "output_format",
        st.sampled_from(
            [
                {"regex": "[a-z]{2,4}"},
                {"json_schema": '{"type": "boolean"}'},
                {"grammar": 'start: "yes" | "no" NAME?\nNAME: /[a-z]/'},
            ]
        ),
        (
            *bad({}),
            *bad({"regex": "("}, {"regex": "x" * 70_000}, path="output_format.regex"),
            *bad({"json_schema": "{"}, {"json_schema": '{"type": "nothing"}'}, path="output_format.json_schema"),
            *bad({"grammar": "start: nobody"}, path="output_format.grammar"),
        ),
    ),
    Field("cache_salt", st.text(max_size=8), bad("x" * 129)),
)
MAX_TOKENS = next(field for field in FIELDS if field.path == "stopping.max_tokens")
SEED = next(field for field in FIELDS if field.path == "sampling.seed")
DEFECTS = tuple((field, value) for field in (*PROMPTS, *FIELDS) for value in field.invalid)
OPTIONAL = tuple(field for field in FIELDS if not field.valid.is_empty)
UNAUTHENTICATED = Refusal(CODES.UNAUTHENTICATED, "INVALID_API_KEY")


@st.composite
def random_requests(draw: st.DrawFn) -> RandomRequest:
    """A request; about every third is refused, for one reason."""
    values: dict[str, Any] = {}
    prompt = draw(st.sampled_from(PROMPTS))
    _put(values, prompt.path, draw(prompt.valid))
    _put(values, MAX_TOKENS.path, draw(MAX_TOKENS.valid))  # else it is the context that ends a text
    _put(values, SEED.path, draw(SEED.valid))  # else no run is like another
    for optional in draw(st.lists(st.sampled_from(OPTIONAL), max_size=6, unique=True)):
        _put(values, optional.path, draw(optional.valid))
    match draw(st.integers(0, 19)):
        case 19:
            return RandomRequest(_spec(values), draw(st.sampled_from([None, "", "another"])), UNAUTHENTICATED)
        case 18:
            return RandomRequest(_spec(values), is_dropped=True)
        case 17:
            del values[prompt.path.partition(".")[0]]
            return RandomRequest(_spec(values), refusal=_invalid("prompt"))
        case choice if choice > 11:
            defective, value = draw(st.sampled_from(DEFECTS))
            if defective in PROMPTS:
                del values[prompt.path.partition(".")[0]]
            _put(values, defective.path, value.value)
            return RandomRequest(_spec(values), refusal=value.refusal or _invalid(value.path or defective.path))
    return RandomRequest(_spec(values))


def _invalid(path: str) -> Refusal:
    return Refusal(CODES.INVALID_ARGUMENT, "INVALID_REQUEST", f"spec.{path}")


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[name] = value


def _spec(values: dict[str, Any]) -> types_pb2.GenerationSpec:
    return types_pb2.GenerationSpec(**values)
