import struct
from dataclasses import replace

import pytest

from tandem.core.errors import InvalidRequest
from tandem.core.output_format import MAX_OUTPUT_FORMAT_BYTES, FormatKind, OutputFormat
from tandem.core.sequence import FinishReason, SpeculationStats
from tandem.internal.v1.verifier_service_pb2 import GenerateRequest
from tandem.rpc.conversion import (
    MAX_PROMPT_LOGPROBS,
    RequestDefaults,
    finish_reason_to_proto,
    logprobs_to_proto,
    resolve_request,
    shortest_decimal,
    stats_to_proto,
)
from tandem.v1 import types_pb2

DEFAULTS = RequestDefaults(
    context_length=32,
    vocabulary_size=100,
    eos_token_ids=frozenset({1, 2}),
    num_speculative_tokens=4,
    temperature=0.7,
    top_k=64,
    top_p=0.95,
)


def resolve(**fields):
    return resolve_request(GenerateRequest(**{"prompt_token_ids": [5, 6], **fields}), DEFAULTS)


def test_absent_fields_take_the_models_defaults():
    resolved = resolve(request_id="r-1", cache_salt="tenant")
    assert (resolved.request_id, resolved.cache_salt, resolved.prompt_token_ids) == ("r-1", "tenant", (5, 6))
    sampling = resolved.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.7, 64, 0.95, 0.0)
    assert not sampling.has_penalties and not sampling.logit_bias
    assert resolved.stopping.max_tokens == 30
    assert (resolved.stopping.min_tokens, resolved.stopping.stop_token_ids) == (0, {1, 2})
    assert not resolved.output.logprobs and not resolved.output.prompt_logprobs
    assert resolved.num_speculative_tokens == 4


def test_zero_is_a_value_where_it_means_something():
    options = types_pb2.SamplingOptions(temperature=0, top_k=0, seed=0)
    resolved = resolve(sampling=options, num_speculative_tokens=0, top_logprobs=0)
    assert (resolved.sampling.is_greedy, resolved.sampling.top_k, resolved.sampling.seed) == (True, 0, 0)
    assert resolved.num_speculative_tokens == 0
    assert (resolved.output.logprobs, resolved.output.top_logprobs) == (True, 0)


def test_given_fields_arrive_as_typed():
    options = types_pb2.SamplingOptions(
        temperature=0.8,
        top_p=0.9,
        top_k=7,
        min_p=0.05,
        seed=2**63 - 1,
        repetition_penalty=0.01,
        presence_penalty=-2,
        frequency_penalty=0.3,
        logit_bias={9: -100, 3: 0.1},
    )
    sampling = resolve(sampling=options).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.8, 0.9, 7, 0.05)
    assert sampling.seed == 2**63 - 1
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (0.01, -2.0, 0.3)
    assert sampling.logit_bias == ((3, 0.1), (9, -100.0))


def test_seeds_differ_when_none_is_given():
    assert len({resolve().sampling.seed for _ in range(8)}) == 8


def test_stopping():
    stopping = resolve(max_tokens=7, min_tokens=3, stop_token_ids=[9]).stopping
    assert (stopping.max_tokens, stopping.min_tokens, stopping.stop_token_ids) == (7, 3, {1, 2, 9})
    assert resolve(ignore_eos=True, stop_token_ids=[9]).stopping.stop_token_ids == {9}
    assert resolve(max_tokens=1000).stopping.max_tokens == 30, "the context ends the text first"


def test_speculation_is_lowered_to_k():
    assert resolve(num_speculative_tokens=3).num_speculative_tokens == 3
    assert resolve(num_speculative_tokens=100).num_speculative_tokens == 4


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"prompt_token_ids": []}, "spec.token_ids"),
        ({"prompt_token_ids": [100]}, "spec.token_ids"),
        ({"prompt_token_ids": [-1]}, "spec.token_ids"),
        ({"prompt_token_ids": [5] * 32}, "spec.token_ids"),
        ({"max_tokens": 0}, "spec.stopping.max_tokens"),
        ({"max_tokens": -5}, "spec.stopping.max_tokens"),
        ({"min_tokens": -1}, "spec.stopping.min_tokens"),
        ({"min_tokens": 9, "max_tokens": 8}, "spec.stopping.min_tokens"),
        ({"stop_token_ids": [100]}, "spec.stopping.stop_token_ids"),
        ({"stop_token_ids": range(33)}, "spec.stopping.stop_token_ids"),
        ({"top_logprobs": 21}, "spec.output.top_logprobs"),
        ({"top_logprobs": -1}, "spec.output.top_logprobs"),
        ({"num_speculative_tokens": -1}, "spec.speculation.num_speculative_tokens"),
        ({"sampling": {"temperature": float("nan")}}, "spec.sampling.temperature"),
        ({"sampling": {"temperature": -0.1}}, "spec.sampling.temperature"),
        ({"sampling": {"top_p": 0}}, "spec.sampling.top_p"),
        ({"sampling": {"top_p": float("inf")}}, "spec.sampling.top_p"),
        ({"sampling": {"top_k": -1}}, "spec.sampling.top_k"),
        ({"sampling": {"min_p": 1.5}}, "spec.sampling.min_p"),
        ({"sampling": {"seed": -1}}, "spec.sampling.seed"),
        ({"sampling": {"repetition_penalty": 0}}, "spec.sampling.repetition_penalty"),
        ({"sampling": {"logit_bias": {100: 1}}}, "spec.sampling.logit_bias"),
        ({"sampling": {"logit_bias": {-1: 1}}}, "spec.sampling.logit_bias"),
        ({"sampling": {"logit_bias": {5: float("nan")}}}, "spec.sampling.logit_bias"),
        ({"sampling": {"logit_bias": {5: 101}}}, "spec.sampling.logit_bias"),
    ],
)
def test_bad_fields_are_named(fields, path):
    with pytest.raises(InvalidRequest) as caught:
        resolve(**fields)
    assert caught.value.field == path


def test_a_prompt_may_leave_room_for_one_token():
    assert resolve(prompt_token_ids=[5] * 31).stopping.max_tokens == 1


@pytest.mark.parametrize("number", [0.0, 0.1, 0.8, 0.95, 1.0, 1 / 3, 0.01, 1e-30, 123456.789, 3e38, -2.0])
def test_shortest_decimal_is_the_same_float32(number):
    packed = struct.pack("<f", number)
    (arrived,) = struct.unpack("<f", packed)
    assert struct.pack("<f", shortest_decimal(arrived)) == packed


@pytest.mark.parametrize("number", [0.1, 0.8, 0.95, 0.01, 0.0001, 99.9999, -1.234567])
def test_shortest_decimal_is_what_was_typed(number):
    (arrived,) = struct.unpack("<f", struct.pack("<f", number))
    assert arrived != number and shortest_decimal(arrived) == number


def test_statistics_and_reasons():
    stats = SpeculationStats()
    stats.record(4, 2)
    stats.record(4, 0)
    assert stats_to_proto(stats) == types_pb2.SpeculationStatistics(
        num_rounds=2, num_draft_tokens=8, num_accepted_tokens=2, accepted_by_position=[1, 1, 0, 0]
    )
    assert finish_reason_to_proto(FinishReason.STOP) == types_pb2.FINISH_REASON_STOP
    assert finish_reason_to_proto(FinishReason.LENGTH) == types_pb2.FINISH_REASON_LENGTH
    logprobs = logprobs_to_proto(-1.5, [(3, -0.5), (4, -1.5)])
    assert (logprobs.logprob, [top.id for top in logprobs.top_logprobs]) == (-1.5, [3, 4])


def test_prompt_logprobs_fit_into_a_message_that_clients_take():
    """Worst case: every id needs three bytes, and a text of eight goes with each prompt token."""
    defaults = replace(DEFAULTS, context_length=1 << 18, vocabulary_size=1 << 18)
    for num_top in (0, 1, 20):
        longest = MAX_PROMPT_LOGPROBS // (num_top + 2)
        fields = {"top_logprobs": num_top, "prompt_logprobs": True}
        prompt = [262_143] * min(longest, (1 << 18) - 1)
        assert resolve_request(GenerateRequest(prompt_token_ids=prompt, **fields), defaults).output.prompt_logprobs
        top = [types_pb2.TopLogprob(id=262_143, logprob=-1.5)] * num_top
        token = types_pb2.Token(id=262_143, text="x" * 8, logprob=-1.5, top_logprobs=top)
        assert types_pb2.Started(prompt_tokens=[token] * len(prompt)).ByteSize() < 4 << 20
        with pytest.raises(InvalidRequest) as caught:
            resolve_request(GenerateRequest(prompt_token_ids=[0] * (longest + 1), **fields), defaults)
        assert caught.value.field == "spec.output.prompt_logprobs"
    resolve_request(GenerateRequest(prompt_token_ids=[0] * 200_000, top_logprobs=20), defaults)


@pytest.mark.parametrize("kind", FormatKind)
def test_an_output_format_is_taken_as_it_is_written(kind):
    text = "é" * (MAX_OUTPUT_FORMAT_BYTES // 2)
    assert resolve(output_format={kind.value: text}).output_format == OutputFormat(kind, text)
    for bad in ("", text + "x"):
        with pytest.raises(InvalidRequest) as caught:
            resolve(output_format={kind.value: bad})
        assert caught.value.field == f"spec.output_format.{kind.value}"


def test_an_output_format_must_say_which():
    assert resolve().output_format is None
    with pytest.raises(InvalidRequest) as caught:
        resolve(output_format={})
    assert caught.value.field == "spec.output_format"
