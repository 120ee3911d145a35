"""What to generate: a prompt, and keyword arguments that are fields of the contract by the same names."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from tandem_client._proto.tandem.v1 import types_pb2
from tandem_client.conversation import Conversation

Prompt = str | Sequence[int] | Conversation  # a text, its token ids, or turns


class Options(TypedDict, total=False):
    """Everything about a generation but its prompt. What is left out is the server's to decide.

    Ranges and defaults are those of `protos/tandem/v1/types.proto`; a value out of range is an `InvalidRequest`.
    """

    model: str
    request_id: str  # shown in the server's logs
    temperature: float  # 0 takes the most likely token
    top_p: float
    top_k: int
    min_p: float
    seed: int  # same seed, same text
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    max_tokens: int
    min_tokens: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    include_stop: bool
    token_ids: bool  # report each token
    top_logprobs: int
    prompt_logprobs: bool
    num_speculative_tokens: int  # draft tokens a round; 0: none
    cache_salt: str
    json_schema: str  # at most one of these three
    regex: str
    grammar: str


_PARTS: dict[str, type[Any]] = {
    "sampling": types_pb2.SamplingOptions,
    "stopping": types_pb2.StoppingOptions,
    "output": types_pb2.OutputOptions,
    "speculation": types_pb2.SpeculationOptions,
    "output_format": types_pb2.OutputFormat,
}


def make_spec(prompt: Prompt, **options: Unpack[Options]) -> types_pb2.GenerationSpec:
    """The message that says all that.

    Raises:
        TypeError: an option that there is not, or a value of another type.
        ValueError: a number that its field cannot hold, or two output formats.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    formats = sorted({"json_schema", "regex", "grammar"} & given.keys())
    if len(formats) > 1:
        raise ValueError(f"{' and '.join(formats)} exclude each other")
    fields: dict[str, Any] = {_prompt_field(prompt): _prompt_value(prompt)}
    for part, kind in _PARTS.items():
        names = given.keys() & kind.DESCRIPTOR.fields_by_name.keys()
        if names:
            fields[part] = kind(**{name: given.pop(name) for name in names})
    unknown = given.keys() - Options.__annotations__.keys()
    if unknown:
        raise TypeError(f"no such option: {', '.join(sorted(unknown))}")
    return types_pb2.GenerationSpec(**fields, **given)


def _prompt_field(prompt: Prompt) -> str:
    match prompt:
        case str():
            return "text"
        case Conversation():
            return "conversation"
        case _:
            return "token_ids"


def _prompt_value(prompt: Prompt) -> object:
    match prompt:
        case str():
            return prompt
        case Conversation():
            return prompt.to_proto()
        case _:
            return types_pb2.TokenIds(ids=prompt)
