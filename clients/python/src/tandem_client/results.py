"""What a generation gives, as frozen values."""

from dataclasses import dataclass
from enum import IntEnum

from tandem_client._proto.tandem.v1 import generation_service_pb2, types_pb2
from tandem_client.conversation import ToolCall


class FinishReason(IntEnum):
    """Why a text ended."""

    UNSPECIFIED = 0  # also: a reason that is newer than this client
    STOP = 1  # a stop token or stop text
    LENGTH = 2  # max_tokens or the context length
    TOOL_CALLS = 3  # the model waits for results of its calls

    @classmethod
    def _missing_(cls, value: object) -> "FinishReason":
        return cls.UNSPECIFIED


class OutputPart(IntEnum):
    """Which part of the answer to a conversation a token belongs to."""

    UNSPECIFIED = 0  # not the answer to a conversation
    TEXT = 1
    THOUGHT = 2
    TOOL_CALL = 3
    CONTROL = 4  # tells parts apart or ends the turn

    @classmethod
    def _missing_(cls, value: object) -> "OutputPart":
        return cls.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class TopLogprob:
    """One of the most likely tokens at a place."""

    id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """One token of prompt or output."""

    id: int
    text: str  # that it completes
    is_drafted: bool
    logprob: float | None  # None: not asked for
    top_logprobs: tuple[TopLogprob, ...]  # best first
    part: OutputPart

    @classmethod
    def from_proto(cls, token: types_pb2.Token) -> "Token":
        """As it came."""
        return cls(
            id=token.id,
            text=token.text,
            is_drafted=token.drafted,
            logprob=token.logprob if token.HasField("logprob") else None,
            top_logprobs=tuple(TopLogprob(top.id, top.logprob) for top in token.top_logprobs),
            part=OutputPart(token.part),
        )


@dataclass(frozen=True, slots=True)
class Started:
    """The request was admitted and its prompt is computed."""

    request_id: str
    model: str
    seed: int  # in force; sending it again gives the same text
    num_prompt_tokens: int
    num_cached_tokens: int  # of the prompt, found in the prefix cache
    prompt_tokens: tuple[Token, ...]  # all but the first, when asked for

    @classmethod
    def from_proto(cls, started: types_pb2.Started) -> "Started":
        """As it came."""
        return cls(
            request_id=started.request_id,
            model=started.model,
            seed=started.seed,
            num_prompt_tokens=started.num_prompt_tokens,
            num_cached_tokens=started.num_cached_tokens,
            prompt_tokens=tuple(map(Token.from_proto, started.prompt_tokens)),
        )


@dataclass(frozen=True, slots=True)
class Delta:
    """What was added: often several tokens, sometimes no text."""

    text: str
    num_tokens: int
    num_drafted_tokens: int  # how many of them were drafted and accepted
    tokens: tuple[Token, ...]  # when asked for
    thought: str
    tool_calls: tuple[ToolCall, ...]  # each whole

    @classmethod
    def from_proto(cls, delta: types_pb2.Delta) -> "Delta":
        """As it came."""
        return cls(
            text=delta.text,
            num_tokens=delta.num_tokens,
            num_drafted_tokens=delta.num_drafted_tokens,
            tokens=tuple(map(Token.from_proto, delta.tokens)),
            thought=delta.thought,
            tool_calls=tuple(map(ToolCall.from_proto, delta.tool_calls)),
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written."""

    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int  # stop tokens included


@dataclass(frozen=True, slots=True)
class Speculation:
    """How well drafting went."""

    num_rounds: int
    num_draft_tokens: int
    num_accepted_tokens: int
    accepted_by_position: tuple[int, ...]  # entry i: rounds whose draft i was accepted


@dataclass(frozen=True, slots=True)
class Finished:
    """The text is complete."""

    reason: FinishReason
    stop_text: str | None  # that ended it
    stop_token_id: int | None  # that ended it
    usage: Usage
    speculation: Speculation

    @classmethod
    def from_proto(cls, finished: types_pb2.Finished) -> "Finished":
        """As it came."""
        usage, speculation = finished.usage, finished.speculation
        return cls(
            reason=FinishReason(finished.reason),
            stop_text=finished.stop_text if finished.HasField("stop_text") else None,
            stop_token_id=finished.stop_token_id if finished.HasField("stop_token_id") else None,
            usage=Usage(usage.num_prompt_tokens, usage.num_cached_tokens, usage.num_output_tokens),
            speculation=Speculation(
                speculation.num_rounds,
                speculation.num_draft_tokens,
                speculation.num_accepted_tokens,
                tuple(speculation.accepted_by_position),
            ),
        )


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole text: a stream's first word, all its deltas as one, and its last word."""

    started: Started
    output: Delta
    finished: Finished

    @property
    def text(self) -> str:
        """The text alone."""
        return self.output.text

    @classmethod
    def from_proto(cls, response: generation_service_pb2.GenerateResponse) -> "Generation":
        """As it came."""
        return cls(
            Started.from_proto(response.started),
            Delta.from_proto(response.output),
            Finished.from_proto(response.finished),
        )
