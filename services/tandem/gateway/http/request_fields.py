"""What a request's body may hold, whatever it asks for. What is not here is refused, never passed over."""

import json
from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from tandem.gateway.http.errors import bad_field
from tandem.v1 import types_pb2

Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, Field(max_length=4096)]


class Strict(BaseModel):
    """An object that holds what it declares and nothing else; numbers are no texts, nor texts numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


class StreamOptions(Strict):
    """`stream_options`."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class JsonSchema(Strict):
    """`response_format.json_schema`; name and description are for the client's own use."""

    name: Text
    schema_: dict[str, Any] = Field(alias="schema")
    description: Text | None = None
    strict: bool | None = None  # it always is


class ResponseFormat(Strict):
    """`response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Strict):
    """`structured_outputs`, as peers name what `response_format` cannot say."""

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    grammar: str | None = None


class Extension(Strict):
    """`tandem`: what no other server has."""

    tokens: bool = False
    num_speculative_tokens: Int32 | None = None


class GenerationFields(Strict, ABC):
    """The fields that both kinds of request share."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    temperature: float | None = None
    top_p: float | None = None
    top_k: Int32 | None = None
    min_p: float | None = None
    seed: Int64 | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    max_tokens: Int32 | None = None
    min_tokens: Int32 | None = None
    stop: str | list[str] | None = None
    stop_token_ids: Annotated[list[Int32], Field(max_length=1024)] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    cache_salt: str | None = None
    tandem: Extension = Extension()

    # Accepted in the one form that changes nothing.
    n: Literal[1] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    # For the client's own accounts: nothing is done with them.
    user: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    metadata: dict[str, str] | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def check(self) -> Self:
        """Refuses fields that contradict each other.

        Raises:
            Refusal: some do.
        """
        if self.stream_options and not self.stream:
            raise bad_field("stream_options", "is for streams: send stream: true")
        if self.response_format and self.structured_outputs:
            raise bad_field("structured_outputs", "does not go together with response_format")
        return self

    @abstractmethod
    def spec(self, request_id: str) -> types_pb2.GenerationSpec:
        """What to generate.

        Raises:
            Refusal: a field cannot be served.
        """

    def fill(self, spec: types_pb2.GenerationSpec) -> None:
        """Writes the shared fields into `spec`; what was left out stays out, for the model's defaults.

        Raises:
            Refusal: a field cannot be served.
        """
        spec.model = self.model or ""
        spec.cache_salt = self.cache_salt or ""
        for name in ("temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty"):
            _set(spec.sampling, name, getattr(self, name))
        for name in ("presence_penalty", "frequency_penalty"):
            _set(spec.sampling, name, getattr(self, name))
        for token, bias in (self.logit_bias or {}).items():
            if not (token.isascii() and token.isdecimal() and len(token) < 10):
                raise bad_field("logit_bias", "is by token id: a number as text")
            spec.sampling.logit_bias[int(token)] = bias
        for name in ("max_tokens", "min_tokens", "ignore_eos"):
            _set(spec.stopping, name, getattr(self, name))
        spec.stopping.include_stop = bool(self.include_stop_str_in_output)
        spec.stopping.stop.extend([self.stop] if isinstance(self.stop, str) else self.stop or [])
        spec.stopping.stop_token_ids.extend(self.stop_token_ids or [])
        spec.output.token_ids = self.tandem.tokens
        _set(spec.speculation, "num_speculative_tokens", self.tandem.num_speculative_tokens)
        output_format = self._output_format()
        if output_format:
            spec.output_format.CopyFrom(output_format)

    def _output_format(self) -> types_pb2.OutputFormat | None:
        if self.response_format:
            return _from_response_format(self.response_format)
        if not self.structured_outputs:
            return None
        wanted = self.structured_outputs
        given = [value for value in (wanted.json_, wanted.regex, wanted.grammar) if value is not None]
        if len(given) != 1:
            raise bad_field("structured_outputs", "needs exactly one of json, regex and grammar")
        if wanted.regex is not None:
            return types_pb2.OutputFormat(regex=wanted.regex)
        if wanted.grammar is not None:
            return types_pb2.OutputFormat(grammar=wanted.grammar)
        schema = wanted.json_ if isinstance(wanted.json_, str) else json.dumps(wanted.json_)
        return types_pb2.OutputFormat(json_schema=schema)


def _from_response_format(wanted: ResponseFormat) -> types_pb2.OutputFormat | None:
    if (wanted.type == "json_schema") != (wanted.json_schema is not None):
        raise bad_field("response_format.json_schema", "must be given with the type json_schema, and only there")
    if wanted.json_schema:
        return types_pb2.OutputFormat(json_schema=json.dumps(wanted.json_schema.schema_))
    return types_pb2.OutputFormat(json_schema='{"type": "object"}') if wanted.type == "json_object" else None


def _set(message: Any, name: str, value: Any) -> None:
    if value is not None:
        setattr(message, name, value)
