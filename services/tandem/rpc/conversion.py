"""Protobuf messages as core objects, and back: the only place where a request's defaults are resolved."""

import secrets
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tandem.core.errors import InvalidRequest
from tandem.core.output_format import FormatKind, OutputFormat
from tandem.core.sampling_params import MAX_LOGIT_BIAS, SEED_RANGE, OutputParams, SamplingParams, StoppingParams
from tandem.core.sequence import FinishReason, SpeculationStats
from tandem.internal.v1 import verifier_service_pb2
from tandem.v1 import types_pb2

MAX_REQUEST_STOP_TOKEN_IDS = 32
# All prompt log-probabilities go into one message. A token takes about 20 bytes and each of its alternatives 11, so
# this keeps it under the 4 MiB that gRPC clients take by default.
MAX_PROMPT_LOGPROBS = 1 << 18


@dataclass(frozen=True)
class RequestDefaults:
    """What the served model means by an absent field, and the bounds it sets."""

    context_length: int
    vocabulary_size: int
    eos_token_ids: frozenset[int]
    num_speculative_tokens: int  # K: default and upper bound
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    suppress_token_ids: tuple[int, ...] = ()  # never chosen, whatever a request says


@dataclass(frozen=True)
class ResolvedRequest:
    """A request with nothing left open: what a sequence is made of."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    output_token_ids: tuple[int, ...]  # generated before, elsewhere
    sampling: SamplingParams
    stopping: StoppingParams
    output: OutputParams
    num_speculative_tokens: int
    cache_salt: str
    output_format: OutputFormat | None = None


def resolve_request(request: verifier_service_pb2.GenerateRequest, defaults: RequestDefaults) -> ResolvedRequest:
    """The core objects of a request to the verifier.

    Raises:
        InvalidRequest: a value is out of range for this model. Fields are named as the gateway's clients know them.
    """
    prompt = tuple(request.prompt_token_ids)
    _require(bool(prompt), "spec.token_ids", "needs at least one token id")
    _require_ids(prompt, "spec.token_ids", defaults.vocabulary_size)
    _require_ids(request.output_token_ids, "output_token_ids", defaults.vocabulary_size)
    num_tokens_left = defaults.context_length - len(prompt)
    if num_tokens_left < 1:
        raise InvalidRequest(
            "spec.token_ids",
            f"{len(prompt)} tokens leave no room for output in a context of {defaults.context_length}",
        )
    output = OutputParams(
        logprobs=request.HasField("top_logprobs"),
        top_logprobs=request.top_logprobs,
        prompt_logprobs=request.prompt_logprobs,
    )
    _require(
        not output.prompt_logprobs or len(prompt) * (output.top_logprobs + 2) <= MAX_PROMPT_LOGPROBS,
        "spec.output.prompt_logprobs",
        f"{len(prompt)} prompt tokens times top_logprobs + 2 may be at most {MAX_PROMPT_LOGPROBS}",
    )
    return ResolvedRequest(
        request_id=request.request_id,
        prompt_token_ids=prompt,
        output_token_ids=tuple(request.output_token_ids),
        sampling=_sampling(request.sampling, defaults),
        stopping=_stopping(request, num_tokens_left, defaults),
        output=output,
        num_speculative_tokens=_num_speculative_tokens(request, defaults.num_speculative_tokens),
        cache_salt=request.cache_salt,
        output_format=_output_format(request.output_format) if request.HasField("output_format") else None,
    )


def _output_format(message: types_pb2.OutputFormat) -> OutputFormat:
    name = message.WhichOneof("format")
    if name is None:
        raise InvalidRequest("spec.output_format", "needs a json_schema, a regex or a grammar")
    return OutputFormat(FormatKind(name), getattr(message, name))


def _sampling(options: types_pb2.SamplingOptions, defaults: RequestDefaults) -> SamplingParams:
    _require(len(options.logit_bias) <= MAX_LOGIT_BIAS, "spec.sampling.logit_bias", f"at most {MAX_LOGIT_BIAS} entries")
    _require_ids(options.logit_bias, "spec.sampling.logit_bias", defaults.vocabulary_size)

    def given(name: str, default: float) -> float:
        return shortest_decimal(getattr(options, name)) if options.HasField(name) else default  # type: ignore[arg-type]

    return SamplingParams(
        temperature=given("temperature", defaults.temperature),
        top_k=options.top_k if options.HasField("top_k") else defaults.top_k,
        top_p=given("top_p", defaults.top_p),
        min_p=given("min_p", 0.0),
        seed=options.seed if options.HasField("seed") else secrets.randbelow(SEED_RANGE),
        repetition_penalty=given("repetition_penalty", 1.0),
        presence_penalty=given("presence_penalty", 0.0),
        frequency_penalty=given("frequency_penalty", 0.0),
        # Sorted: the order of a protobuf map is not the sender's.
        logit_bias=tuple(sorted((token_id, shortest_decimal(bias)) for token_id, bias in options.logit_bias.items())),
        suppress_token_ids=defaults.suppress_token_ids,
    )


def _stopping(
    request: verifier_service_pb2.GenerateRequest, num_tokens_left: int, defaults: RequestDefaults
) -> StoppingParams:
    path = "spec.stopping.stop_token_ids"
    own = frozenset(request.stop_token_ids)
    _require(len(own) <= MAX_REQUEST_STOP_TOKEN_IDS, path, f"at most {MAX_REQUEST_STOP_TOKEN_IDS} ids")
    _require_ids(own, path, defaults.vocabulary_size)
    # The context ends a text just as max_tokens does, so asking for more than fits is no error.
    max_tokens = min(request.max_tokens, num_tokens_left) if request.HasField("max_tokens") else num_tokens_left
    return StoppingParams(
        max_tokens=max_tokens,
        min_tokens=request.min_tokens,
        stop_token_ids=own if request.ignore_eos else own | defaults.eos_token_ids,
    )


def _num_speculative_tokens(request: verifier_service_pb2.GenerateRequest, k: int) -> int:
    if not request.HasField("num_speculative_tokens"):
        return k
    wanted = request.num_speculative_tokens
    _require(wanted >= 0, "spec.speculation.num_speculative_tokens", "must be 0 or positive")
    return min(wanted, k)


def shortest_decimal(value: float) -> float:
    """The number that a client typed before protobuf made it a float32: 0.8, where 0.800000011920929 arrives.

    Among all numbers that become this float32 it is the one with the fewest digits. Bounds such as 0.01 then hold as
    written, and a request means the same over gRPC as in process.
    """
    if not abs(value) < 1e30:  # neither infinite nor NaN nor anything that a field allows
        return value
    packed = struct.pack("<f", value)
    for num_digits in range(6, 9):
        decimal = float(f"{value:.{num_digits}g}")
        if struct.pack("<f", decimal) == packed:
            return decimal
    return float(f"{value:.9g}")


def finish_reason_to_proto(reason: FinishReason) -> types_pb2.FinishReason.ValueType:
    """The public name of a reason that ends a stream with OK; the others end it with a status."""
    return {
        FinishReason.STOP: types_pb2.FINISH_REASON_STOP,
        FinishReason.LENGTH: types_pb2.FINISH_REASON_LENGTH,
    }[reason]


def stats_to_proto(stats: SpeculationStats) -> types_pb2.SpeculationStatistics:
    """What drafting did, as a message."""
    return types_pb2.SpeculationStatistics(
        num_rounds=stats.num_rounds,
        num_draft_tokens=stats.num_draft_tokens,
        num_accepted_tokens=stats.num_accepted_tokens,
        accepted_by_position=stats.accepted_by_position,
    )


def logprobs_to_proto(logprob: float, top: Sequence[tuple[int, float]]) -> verifier_service_pb2.TokenLogprobs:
    """One token's log-probability and those of the most likely (token id, log-probability), best first."""
    return verifier_service_pb2.TokenLogprobs(
        logprob=logprob,
        top_logprobs=[types_pb2.TopLogprob(id=token_id, logprob=value) for token_id, value in top],
    )


def _require(condition: bool, field: str, description: str) -> None:
    if not condition:
        raise InvalidRequest(field, description)


def _require_ids(token_ids: Iterable[int], field: str, vocabulary_size: int) -> None:
    for token_id in token_ids:
        if not 0 <= token_id < vocabulary_size:
            raise InvalidRequest(field, f"token id {token_id} is not in 0..{vocabulary_size - 1}")
