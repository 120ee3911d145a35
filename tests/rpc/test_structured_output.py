"""A verifier that is sent output formats, good and bad ones, over a tiny pair with a tokenizer."""

import asyncio
import json
import threading
import time

import grpc
import pytest

from tandem.rpc.errors import from_rpc_error
from tandem.v1 import types_pb2
from tandem.verifier import grammar_compiler
from tests.checkpoints import make_tiny_pair
from tests.rpc.verifiers import greedy, refused, tokens, verifier
from tests.unit.gateway.conftest import byte_level_tokenizer, save_checkpoint

HOSTILE = {
    "allOf": [{"type": "string", "pattern": f"(a|b)*{'ab'[i % 2]}(a|b){{{i}}}$"} for i in range(20)],
}
BAD = [
    ({"json_schema": '{"type":'}, "spec.output_format.json_schema", "line 1 column 9"),
    ({"json_schema": '{"items": {"type": "x"}}'}, "spec.output_format.json_schema", "at $.items"),
    ({"regex": "ab(c"}, "spec.output_format.regex", "column 3"),
    ({"grammar": 'start: "a"\n!'}, "spec.output_format.grammar", "line 2"),
    ({"grammar": "start: <turn|>"}, "spec.output_format.grammar", "cannot name tokens"),
    ({"regex": "a" * 70_000}, "spec.output_format.regex", "65536 bytes"),
    ({}, "spec.output_format", "needs a"),
    ({"json_schema": json.dumps(HOSTILE)}, "spec.output_format.json_schema", "too much time"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer()


@pytest.fixture(scope="module")
def pair(tokenizer, tmp_path_factory):
    target, drafter = make_tiny_pair(tmp_path_factory.mktemp("pair"), vocab_size=tokenizer.get_vocab_size() + 10)
    (target / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 5]}))
    save_checkpoint(target, tokenizer)
    return target, drafter


def confined(**fields):
    return greedy(**({"max_tokens": 60, "ignore_eos": False, "prompt_token_ids": [2, 40, 41]} | fields))


async def test_the_text_matches_and_then_ends(pair, tokenizer, tmp_path):
    request = confined(output_format={"regex": "[0-9]{4}-(yes|no)!"})
    async with verifier(pair, tmp_path) as (_, stub):
        responses = [response async for response in stub.Generate(request)]
        again = await tokens(stub, confined(output_format={"regex": "[0-9]{4}-(yes|no)!"}, num_speculative_tokens=0))
    ids = [token_id for response in responses for token_id in response.round.token_ids]
    text = tokenizer.decode(ids)
    assert text[:4].isdigit() and text[4:] in ("-yes!", "-no!")
    finished = responses[-1].finished
    assert finished.reason == types_pb2.FINISH_REASON_STOP and not finished.HasField("stop_token_id")
    assert again == ids


@pytest.mark.parametrize(("output_format", "field", "description"), BAD, ids=range(len(BAD)))
async def test_a_bad_format_is_refused_with_its_place(pair, tmp_path, output_format, field, description):
    async with verifier(pair, tmp_path) as (_, stub):
        for _ in range(20):
            started_at = time.monotonic()
            error = await refused(stub.Generate(confined(output_format=output_format)))
            assert time.monotonic() - started_at < 6  # two, with a wide margin
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:  # as a busy machine answers: try again
                break
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    refusal = from_rpc_error(error)
    assert refusal.field == field and description in refusal.description


async def test_a_storm_of_bad_formats_changes_no_other_text(pair, tmp_path):
    """Refused one and all, while a stream of free text and one with a known format run as if alone."""
    free = confined(max_tokens=300, ignore_eos=True)
    known = confined(max_tokens=300, output_format={"regex": "[a-z]+"}, ignore_eos=True)
    async with verifier(pair, tmp_path) as (_, stub):
        alone = [await tokens(stub, free), await tokens(stub, known)]
        storm = [refused(stub.Generate(confined(output_format=bad))) for bad, _, _ in BAD * 3]
        *errors, one, other = await asyncio.gather(*storm, tokens(stub, free), tokens(stub, known))
        assert [one, other] == alone
        assert await tokens(stub, known) == alone[1]
    codes = {error.code() for error in errors}
    # Those who found no place among the checks are told to come again.
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert grpc.StatusCode.INVALID_ARGUMENT in codes


async def test_a_checked_format_is_not_checked_again(pair, tmp_path, monkeypatch):
    request = confined(output_format={"json_schema": '{"type": "boolean"}'})
    async with verifier(pair, tmp_path) as (_, stub):
        text = await tokens(stub, request)
        monkeypatch.setattr(grammar_compiler, "ask_process", None)
        assert await tokens(stub, request) == text


async def test_too_many_at_a_time_are_sent_away(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(grammar_compiler, "MAX_WAIT_SECONDS", 0.01)
    go_on, being_checked = threading.Event(), threading.Semaphore(0)

    def slow(output_format):
        being_checked.release()
        go_on.wait(30)
        return b'{"error": "no"}'

    monkeypatch.setattr(grammar_compiler, "ask_process", slow)
    async with verifier(pair, tmp_path) as (_, stub):
        waiting = [
            asyncio.create_task(refused(stub.Generate(confined(output_format={"regex": "a" * n})))) for n in (1, 2)
        ]
        for _ in waiting:
            assert await asyncio.to_thread(being_checked.acquire, timeout=10)
        error = await refused(stub.Generate(confined(output_format={"regex": "b"})))
        assert from_rpc_error(error).reason == "QUEUE_FULL"
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        go_on.set()
        assert {(await task).code() for task in waiting} == {grpc.StatusCode.INVALID_ARGUMENT}


async def test_without_a_tokenizer_it_says_so(tmp_path):
    tiny = make_tiny_pair(tmp_path)
    async with verifier(tiny, tmp_path) as (_, stub):
        error = await refused(stub.Generate(greedy(output_format={"regex": "a"})))
        assert len(await tokens(stub, greedy())) == 12
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(error).field == "spec.output_format"
    assert "tokenizer" in error.details()
