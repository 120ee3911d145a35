"""The verifier over a tiny pair: its service on a real socket, its engine behind it."""

import asyncio
import json
import shutil

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.core.errors import ConfigError
from tandem.engine.model_runner import ModelRunner
from tandem.internal.v1 import verifier_service_pb2 as pb
from tandem.internal.v1 import verifier_service_pb2_grpc as pb_grpc
from tandem.rpc.channel import open_channel
from tandem.rpc.errors import from_rpc_error
from tandem.telemetry import metrics as names
from tandem.v1 import types_pb2
from tandem.verifier import model as models
from tandem.verifier.config import VerifierConfig
from tandem.verifier.service import open_verifier
from tests.checkpoints import make_tiny_pair
from tests.rpc.verifiers import PROMPT, ended, greedy, refused, tokens, verifier


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    target, drafter = make_tiny_pair(tmp_path_factory.mktemp("pair"))
    (target / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "eos_token_id": [1, 3]})
    )
    return target, drafter


async def test_a_stream_is_started_rounds_finished(pair, tmp_path):
    async with verifier(pair, tmp_path) as (_, stub):
        responses = [response async for response in stub.Generate(greedy())]
    kinds = [response.WhichOneof("event") for response in responses]
    assert kinds == ["started", *["round"] * (len(responses) - 2), "finished"]
    rounds = [response.round for response in responses[1:-1]]
    assert sum(len(r.token_ids) for r in rounds) == 12
    assert not rounds[0].HasField("num_draft_tokens")
    assert all(r.HasField("num_draft_tokens") for r in rounds[1:])
    finished = responses[-1].finished
    assert finished.reason == types_pb2.FINISH_REASON_LENGTH
    assert finished.speculation.num_rounds == len(rounds) - 1
    assert finished.speculation.num_draft_tokens == sum(r.num_draft_tokens for r in rounds)
    assert finished.speculation.num_accepted_tokens == sum(r.num_drafted_tokens for r in rounds)


async def test_a_seed_names_a_text_and_is_reported(pair, tmp_path):
    # So hot that two seeds write different texts for certain: a tiny pair repeats itself otherwise.
    hot = {"temperature": 5.0, "top_k": 0, "top_p": 1.0}
    async with verifier(pair, tmp_path) as (_, stub):
        first = [response async for response in stub.Generate(greedy(sampling=hot, max_tokens=30))]
        seed = first[0].started.seed
        text = [i for response in first for i in response.round.token_ids]

        def again(seed, k):
            return tokens(stub, greedy(sampling=hot | {"seed": seed}, max_tokens=30, num_speculative_tokens=k))

        assert await again(seed, 4) == text
        assert await again(seed, 0) == text
        assert await again(seed ^ 1, 4) != text


async def test_the_model_is_described_with_its_drafter(pair, tmp_path):
    async with verifier(pair, tmp_path, model_name="tiny", max_context=100) as (_, stub):
        model = (await stub.DescribeModel(pb.DescribeModelRequest())).model
    assert (model.name, model.context_length, model.vocabulary_size, model.dtype) == ("tiny", 100, 64, "float32")
    assert list(model.eos_token_ids) == [1, 3]
    assert model.default_sampling.top_k == 20
    assert (model.drafter.name, model.drafter.num_speculative_tokens) == ("drafter", 4)
    assert model.revision and model.drafter.revision


async def test_without_a_drafter_it_serves_and_says_so(pair, tmp_path):
    async with verifier(pair, tmp_path) as (_, stub):
        text = await tokens(stub, greedy())
    async with verifier(pair, tmp_path, drafter="none", draft_model="") as (_, stub):
        assert not (await stub.DescribeModel(pb.DescribeModelRequest())).model.HasField("drafter")
        assert await tokens(stub, greedy()) == text


async def test_log_probabilities_come_when_asked_for(pair, tmp_path):
    async with verifier(pair, tmp_path) as (_, stub):
        responses = [r async for r in stub.Generate(greedy(top_logprobs=2, prompt_logprobs=True))]
    assert len(responses[0].started.prompt_logprobs) == len(PROMPT) - 1
    for response in responses[1:-1]:
        for token_id, about in zip(response.round.token_ids, response.round.logprobs, strict=True):
            assert about.top_logprobs[0].id == token_id  # greedy
            assert about.logprob == about.top_logprobs[0].logprob
            assert len(about.top_logprobs) == 2


async def cached(stub, **fields):
    """How many tokens of a prompt of 50 were found, and the text after it."""
    responses = [r async for r in stub.Generate(greedy(prompt_token_ids=PROMPT * 8 + [3, 2], **fields))]
    return responses[0].started.num_cached_tokens, [i for r in responses for i in r.round.token_ids]


async def test_a_prompt_is_found_again_under_its_salt_alone(pair, tmp_path):
    async with verifier(pair, tmp_path, block_size=16) as (opened, stub):
        cold, text = await cached(stub, cache_salt="one")
        assert (await cached(stub, cache_salt="one")) == (48, text)
        assert (await cached(stub, cache_salt="other")) == (0, text)
        assert (await cached(stub)) == (0, text)
    assert cold == 0
    assert opened.metrics.value(names.CACHED_TOKENS) == 48
    assert opened.metrics.value(names.PROMPT_TOKENS) == 4 * 50 + 16  # the warm-up's, which finds and leaves nothing


async def test_the_warm_up_is_found_by_nobody(pair, tmp_path):
    async with verifier(pair, tmp_path) as (_, stub):
        responses = [r async for r in stub.Generate(greedy(prompt_token_ids=[0] * 40))]
    assert responses[0].started.num_cached_tokens == 0


async def test_without_a_prefix_cache_every_prompt_is_computed(pair, tmp_path):
    async with verifier(pair, tmp_path, prefix_cache=False) as (_, stub):
        first, second = await cached(stub), await cached(stub)
    assert first == second
    assert first[0] == 0


async def test_it_listens_and_says_loading_before_it_serves(pair, tmp_path, monkeypatch):
    go_on = asyncio.Event()
    loop, load = asyncio.get_running_loop(), models.load

    def slow_load(*args):
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        return load(*args)

    monkeypatch.setattr(models, "load", slow_load)
    config = VerifierConfig(target=str(pair[0]), listen=f"unix:{tmp_path}/verifier.sock", drafter="none")

    async def open_and_close():
        async with open_verifier(config) as opened:
            opened.background[-1].close()
            async with open_channel(config.listen) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                return (await stub.Check(health_pb2.HealthCheckRequest())).status

    opening = asyncio.create_task(open_and_close())
    async with open_channel(config.listen) as channel:
        call = pb_grpc.VerifierServiceStub(channel).Generate(greedy(), wait_for_ready=True)
        error = from_rpc_error(await refused(call))
        assert error.reason == "LOADING"
        health = health_pb2_grpc.HealthStub(channel)
        assert (
            await health.Check(health_pb2.HealthCheckRequest())
        ).status == health_pb2.HealthCheckResponse.NOT_SERVING
    go_on.set()
    assert await opening == health_pb2.HealthCheckResponse.SERVING


async def test_dropping_the_stream_frees_the_sequence(pair, tmp_path):
    async with verifier(pair, tmp_path, max_sequences=1) as (opened, stub):
        call = stub.Generate(greedy(max_tokens=900, num_speculative_tokens=0))
        await call.read()
        call.cancel()
        await ended(opened, 1, "cancelled")
        assert len(await tokens(stub, greedy())) == 12


async def test_a_deadline_ends_the_stream_and_frees_the_sequence(pair, tmp_path):
    async with verifier(pair, tmp_path, max_sequences=1) as (opened, stub):
        error = await refused(stub.Generate(greedy(max_tokens=900, num_speculative_tokens=0), timeout=0.05))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await ended(opened, 1, "deadline", "cancelled")
        assert len(await tokens(stub, greedy())) == 12


async def test_a_reader_that_stops_reading_holds_nobody_up(pair, tmp_path):
    async with verifier(pair, tmp_path) as (opened, stub):
        slow = aiter(stub.Generate(greedy(max_tokens=600)))
        assert (await anext(slow)).HasField("started")
        assert len(await tokens(stub, greedy(max_tokens=100))) == 100
        await ended(opened, 3, "length")  # with the warm-up's
        assert sum([len(response.round.token_ids) async for response in slow]) == 600


async def test_a_full_queue_is_refused_before_any_header(pair, tmp_path):
    async with verifier(pair, tmp_path, max_sequences=1, max_queue=0) as (opened, stub):
        running = stub.Generate(greedy(max_tokens=900, num_speculative_tokens=0))
        await running.read()
        error = await refused(stub.Generate(greedy()))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert from_rpc_error(error).reason == "QUEUE_FULL"
        assert opened.metrics.value(names.REQUESTS_REFUSED, reason="QUEUE_FULL") == 1
        running.cancel()


async def test_what_the_cache_cannot_hold_is_refused(pair, tmp_path):
    async with verifier(pair, tmp_path, kv_tokens=64) as (_, stub):
        error = await refused(stub.Generate(greedy(max_tokens=100)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert from_rpc_error(error).reason == "KV_CACHE_FULL"


async def test_a_bad_field_is_named(pair, tmp_path):
    async with verifier(pair, tmp_path) as (_, stub):
        for fields, name in (
            ({"prompt_token_ids": []}, "spec.token_ids"),
            ({"prompt_token_ids": [64]}, "spec.token_ids"),
            ({"sampling": {"top_p": 0.0}}, "spec.sampling.top_p"),
            ({"max_tokens": 0}, "spec.stopping.max_tokens"),
        ):
            error = await refused(stub.Generate(greedy(**fields)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert from_rpc_error(error).field == name


async def test_an_engine_fault_is_internal_and_tells_nothing(pair, tmp_path, monkeypatch):
    async with verifier(pair, tmp_path) as (opened, stub):
        call = aiter(stub.Generate(greedy(max_tokens=900)))
        await anext(call)
        with monkeypatch.context() as patch:
            patch.setattr(ModelRunner, "run", lambda self, step: {}["secret"])
            error = await refused(call)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in error.details()
        assert len(await tokens(stub, greedy())) == 12


async def test_the_drafters_checkpoint_says_how_many_it_drafts(pair, tmp_path):
    settings = {"draft_model": str(shutil.copytree(pair[1], tmp_path / "drafter"))}
    (tmp_path / "drafter" / "generation_config.json").write_text(json.dumps({"num_assistant_tokens": 6}))

    async def accepted_at_most(**more):
        async with verifier(pair, tmp_path, **settings, **more) as (_, stub):
            model = (await stub.DescribeModel(pb.DescribeModelRequest())).model
            rounds = [r.round for r in [r async for r in stub.Generate(greedy(max_tokens=40))] if r.HasField("round")]
            assert max(r.num_draft_tokens for r in rounds) == model.drafter.num_speculative_tokens
            return model.drafter.num_speculative_tokens

    assert await accepted_at_most() == 6
    assert await accepted_at_most(num_speculative_tokens=2) == 2
    assert await accepted_at_most(max_step_tokens=5) == 4, "no more than a step has room for"


async def test_what_the_checkpoint_suppresses_is_never_written(pair, tmp_path):
    target = shutil.copytree(pair[0], tmp_path / "target")
    async with verifier((target, pair[1]), tmp_path) as (_, stub):
        free = await tokens(stub, greedy(max_tokens=30))
    (target / "generation_config.json").write_text(json.dumps({"suppress_tokens": free[:3]}))
    async with verifier((target, pair[1]), tmp_path) as (_, stub):
        drafted = await tokens(stub, greedy(max_tokens=30, num_speculative_tokens=4))
        alone = await tokens(stub, greedy(max_tokens=30, num_speculative_tokens=0))
    assert drafted == alone and len(alone) == 30
    assert not set(alone) & set(free[:3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "/nowhere"}, "not a checkpoint folder"),
        ({"max_context": 10**6}, "--max-context"),
        ({"batch_invariant": True, "max_sequences": 129}, "--max-sequences of at most 128"),
        ({"batch_invariant": True, "device": "cuda"}, "--dtype bfloat16"),
        ({"block_size": 24, "device": "cuda"}, "--block-size must be a multiple of 16"),
        ({"exchange_directory": "/nowhere", "drafter": "unix:/tmp/d.sock", "draft_model": ""}, "/nowhere"),
    ],
)
async def test_what_it_cannot_start_with_is_said_in_one_line(pair, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        async with (
            verifier(pair, tmp_path, **settings)
            if "target" not in settings
            else open_verifier(VerifierConfig(target="/nowhere", listen=f"unix:{tmp_path}/v.sock", drafter="none"))
        ):
            pass
    assert "\n" not in str(caught.value)
