"""The drafter's service with a real network: what it maps, whom it refuses, what it lets go of."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from tandem.core.draft_position import BEFORE_P
from tandem.core.errors import CheckpointError, ConfigError
from tandem.core.sampling_params import SamplingParams
from tandem.drafter.config import DrafterConfig
from tandem.drafter.device import Device
from tandem.drafter.service import open_drafter, run
from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.drafter.v1 import drafter_service_pb2_grpc as pb_grpc
from tandem.engine.draft_source import Drafts
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.exchange.draft_inputs import DTYPES
from tandem.exchange.offer import FileOffer
from tandem.exchange.shared_exchange import SharedExchange
from tandem.models.gemma4.weights import load_drafter
from tandem.models.weight_files import revision
from tandem.rpc.channel import open_channel
from tandem.telemetry.metrics import Metrics
from tandem.verifier import drafter_link
from tandem.verifier.drafter_link import DrafterLink
from tandem.verifier.memory_carrier import MemoryCarrier, shared_memory_of
from tests.checkpoints import make_tiny_pair
from tests.engines import wanted
from tests.unit.engine.drafting import GREEDY, Decoding, exchange_spec

K = 4
SAMPLED = SamplingParams(temperature=0.9, top_k=20, top_p=0.95, seed=11)
LENGTHS = {"a": 5, "b": 41}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def decoding(pair):
    return Decoding(pair, LENGTHS)


@pytest.fixture
def config(pair, tmp_path):
    target, drafter = pair
    return DrafterConfig(str(drafter), str(target), f"unix:{tmp_path}/drafter.sock", num_speculative_tokens=K)


@pytest.fixture
def exchange(decoding, tmp_path):
    """What a verifier shares that is in the middle of two sequences, in slots 1 and 4."""
    exchange = share(decoding, exchange_spec(decoding.target), tmp_path)
    decoding.write(exchange.inputs, 1, "a", SAMPLED)
    decoding.write(exchange.inputs, 4, "b", GREEDY)
    yield exchange
    exchange.close()


def share(decoding, spec, directory):
    exchange = SharedExchange(spec, directory)
    exchange.inputs.embedding.copy_(decoding.target.embed_tokens)
    for group, tensor in decoding.runner.drafter_kv.items():
        exchange.inputs.kv[group].copy_(tensor)
    return exchange


def offer(exchange, generation):
    return FileOffer(exchange.spec, generation, str(exchange.target_path), str(exchange.drafts_path))


class Client:
    """A drafter and a channel to it."""

    def __init__(self, server, channel, exchange):
        self.server = server
        self.stub = pb_grpc.DrafterServiceStub(channel)
        self.channel = channel
        self.exchange = exchange

    def attachment(self, generation, **fields):
        request = pb.AttachRequest(
            layout_version=1,
            generation=generation,
            shared_memory=shared_memory_of(self.exchange),
            target_revision="rev",
        )
        for name, value in fields.items():
            setattr(request if name == "layout_version" else request.shared_memory, name, value)
        return request

    async def attach(self, generation, **fields):
        self.exchange.renew(generation)
        return await self.stub.Attach(self.attachment(generation, **fields))

    async def open_stream(self, generation):
        """A stream that the drafter knows to be that attachment's."""
        call = self.stub.Draft()
        assert await self.ask(call, generation=generation) == pb.DraftResponse(generation=generation)
        return call

    async def ask(self, call, **fields):
        await call.write(pb.DraftRequest(**fields))
        return await call.read()


@pytest.fixture
async def client(config, exchange):
    async with open_drafter(config) as drafter, open_channel(drafter.address) as channel:
        yield Client(drafter.server, channel, exchange)


@asynccontextmanager
async def linked(address, exchange):
    """The verifier's end, attached."""
    link = DrafterLink(address, MemoryCarrier(exchange), "rev", 5.0, Metrics())
    following = asyncio.create_task(link.follow())
    try:
        await until(lambda: link.info)
        yield link
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.01)


async def play_round(link, slots, num_tokens=K):
    assert link.begin(wanted(slots, num_tokens))
    return await asyncio.to_thread(link.collect)


def expected(decoding, exchange, slots, num_tokens=K):
    return [tuple(ids) for ids in MtpDrafter(decoding.network, exchange.inputs).propose(slots, num_tokens)]


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 5.0)
    return caught.value.code(), caught.value.details()


async def test_drafts_over_the_split_are_those_in_process(client, config, decoding, exchange, pair):
    async with linked(config.listen, exchange) as link:
        assert (link.info.name, link.info.num_speculative_tokens) == ("drafter", K)
        assert link.info.revision == revision(pair[1])
        both = expected(decoding, exchange, [4, 1])
        assert [len(token_ids) for token_ids in both] == [K, K]
        assert await play_round(link, [4, 1]) == Drafts(both)
        assert await play_round(link, [1], 2) == Drafts(expected(decoding, exchange, [1], 2))
        decoding.write(exchange.inputs, 1, "b", SAMPLED)
        moved = expected(decoding, exchange, [1])
        assert moved != both[1:]
        assert await play_round(link, [1]) == Drafts(moved)


async def test_the_position_of_the_queries_is_a_setting(config, decoding, exchange):
    async with open_drafter(replace(config, draft_position=BEFORE_P)), linked(config.listen, exchange) as link:
        drafts = MtpDrafter(decoding.network, exchange.inputs, BEFORE_P).propose([1, 4], K)
        assert [tuple(token_ids) for token_ids in drafts] != expected(decoding, exchange, [1, 4])
        assert await play_round(link, [1, 4]) == Drafts([tuple(token_ids) for token_ids in drafts])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_a_drafter_with_centroids(tmp_path, dtype):
    pair = make_tiny_pair(tmp_path / "pair", centroids=(16, 3))
    decoding = Decoding(pair, LENGTHS)
    network = load_drafter(pair[1], decoding.target.config, DTYPES[dtype], "cpu", None)
    exchange = share(decoding, replace(exchange_spec(decoding.target), dtype=dtype), tmp_path)
    decoding.write(exchange.inputs, 1, "a", SAMPLED)
    decoding.write(exchange.inputs, 4, "b", GREEDY)
    drafts = MtpDrafter(network, exchange.inputs).propose([1, 4], K)
    config = DrafterConfig(str(pair[1]), str(pair[0]), f"unix:{tmp_path}/drafter.sock", num_speculative_tokens=K)
    async with open_drafter(config), linked(config.listen, exchange) as link:
        assert await play_round(link, [1, 4]) == Drafts([tuple(token_ids) for token_ids in drafts])
    exchange.close()


async def test_slots_that_make_no_sense_have_no_drafts(client, exchange):
    await client.attach(5)
    call = await client.open_stream(5)
    exchange.inputs.token_ids[4] = 64
    response = await client.ask(call, generation=5, round=1, slots=[4, 1, 8, 2**32 - 1, 0], num_tokens=1000)
    assert list(response.num_tokens) == [0, K, 0, 0, 0] and response.round == 1
    assert exchange.read_drafts(5, 1, [1], [K])


@pytest.mark.parametrize("max_draft_tokens", [1, 8])
async def test_no_more_is_drafted_than_there_is_room_or_leave_for(client, decoding, tmp_path, max_draft_tokens):
    client.exchange = share(decoding, exchange_spec(decoding.target, max_draft_tokens=max_draft_tokens), tmp_path)
    decoding.write(client.exchange.inputs, 0, "a", GREEDY)
    await client.attach(5)
    response = await client.ask(await client.open_stream(5), generation=5, round=1, slots=[0], num_tokens=60)
    assert list(response.num_tokens) == [min(K, max_draft_tokens)]
    client.exchange.close()


async def test_a_verifier_of_another_dtype_makes_it_load_again(client, config, decoding, pair, tmp_path):
    exchange = share(decoding, replace(exchange_spec(decoding.target), dtype="bfloat16"), tmp_path)
    decoding.write(exchange.inputs, 0, "b", SAMPLED)
    network = load_drafter(pair[1], decoding.target.config, torch.bfloat16, "cpu", None)
    drafts = MtpDrafter(network, exchange.inputs).propose([0], K)
    async with linked(config.listen, exchange) as link:
        assert await play_round(link, [0]) == Drafts([tuple(token_ids) for token_ids in drafts])
    exchange.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layout_version": 2}, "layout_version: must be 1"),
        ({"target_path": "relative"}, "absolute"),
        ({"target_path": "/nowhere/file"}, "cannot open the file: No such file"),
        ({"drafts_path": "/dev/null"}, "regular"),
        ({"num_slots": 9}, "bytes long"),
        ({"num_slots": 0}, "num_slots must be between"),
        ({"num_slots": 2**32 - 1}, "num_slots must be between"),
        ({"dtype": "float64"}, "dtype"),
        ({"vocabulary_size": 65}, "vocabulary_size is 64 in the drafter, 65 in the target"),
        ({"hidden_size": 16}, "hidden_size is 32"),
    ],
    ids=str,
)
async def test_an_attachment_that_is_wrong_is_refused_and_the_right_one_stays(client, exchange, fields, message):
    await client.attach(5)
    call = await client.open_stream(5)
    exchange.renew(6)
    code, details = await refusal(client.stub.Attach(client.attachment(6, **fields)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and message in details
    response = await client.ask(call, generation=5, round=1, slots=[1], num_tokens=2)
    assert list(response.num_tokens) == [2]


async def test_layers_that_do_not_fit_are_refused(client, decoding):
    for change, message in [
        (lambda layers: layers[0].MergeFrom(pb.SharedLayer(num_kv_heads=1)), "num_kv_heads of sliding_attention is 2"),
        (lambda layers: layers[1].MergeFrom(pb.SharedLayer(head_dim=8)), "head_dim of full_attention is 16"),
        (lambda layers: layers.pop(), "full_attention layer, which is not shared"),
        (lambda layers: layers[0].MergeFrom(pb.SharedLayer(num_blocks=2**32 - 1)), "num_blocks must be between"),
    ]:
        request = client.attachment(6)
        change(request.shared_memory.layers)
        code, details = await refusal(client.stub.Attach(request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT and message in details


async def test_a_verifier_that_only_sends_tokens_is_refused(client):
    request = pb.AttachRequest(generation=6, token_stream=pb.TokenStream(num_slots=8, vocabulary_size=64))
    code, details = await refusal(client.stub.Attach(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and details.startswith("shared_memory: is needed")


async def test_a_verifier_on_a_gpu_is_told_what_the_drafter_lacks(client):
    files = client.attachment(6).shared_memory
    sizes = {name: getattr(files, name) for name in ("dtype", "num_slots", "max_draft_tokens", "max_blocks")}
    sizes |= {name: getattr(files, name) for name in ("block_size", "vocabulary_size", "hidden_size", "layers")}
    memory = pb.CudaMemory(handle=bytes(64), device_uuid="0", flags_path="/dev/shm/flags", **sizes)
    code, details = await refusal(
        client.stub.Attach(pb.AttachRequest(layout_version=1, generation=6, cuda_memory=memory))
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == "cuda_memory: the verifier shares GPU memory, with a drafter that has --device cuda"


async def test_files_of_another_attachment_are_refused(client, exchange):
    exchange.renew(5)
    code, details = await refusal(client.stub.Attach(client.attachment(6)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "header" in details


async def test_a_later_attachment_ends_the_earlier_ones_stream(client):
    await client.attach(5)
    first = await client.open_stream(5)
    await client.attach(6)
    assert await refusal(first.read()) == (grpc.StatusCode.UNAVAILABLE, "another verifier attached")
    second = await client.open_stream(6)
    await asyncio.sleep(0.05)  # the end of the first one's stream must not take the second one's memory
    assert list((await client.ask(second, generation=6, round=1, slots=[1], num_tokens=1)).num_tokens) == [1]


@pytest.mark.parametrize("generation", [0, 4, 6])
async def test_only_the_attachment_there_is_can_be_drafted_for(client, generation):
    for is_attached in (False, True):
        if is_attached:
            await client.attach(5)
        call = client.stub.Draft()
        await call.write(pb.DraftRequest(generation=generation, round=1, slots=[1], num_tokens=1))
        assert await refusal(call.read()) == (grpc.StatusCode.INVALID_ARGUMENT, "generation: is not attached")


@pytest.mark.parametrize(
    ("asked", "checkpoint_says", "k"), [(None, None, 4), (None, 3, 3), (6, 3, 6), (None, 1000, 64)]
)
async def test_how_many_it_drafts_is_asked_for_or_its_checkpoints_own(pair, config, asked, checkpoint_says, k):
    file = pair[1] / "generation_config.json"
    before = file.read_text()
    if checkpoint_says:
        file.write_text(json.dumps({"num_assistant_tokens": checkpoint_says}))
    device = Device(replace(config, num_speculative_tokens=asked))
    try:
        assert (await device.load()).num_speculative_tokens == k
    finally:
        device.close()
        file.write_text(before)


async def test_what_its_checkpoint_suppresses_is_not_drafted(pair, config, exchange):
    file = pair[1] / "generation_config.json"
    before = file.read_text()
    drafted = []
    for suppressed in ([], [0]):
        file.write_text(json.dumps({"suppress_tokens": suppressed and drafted[0]}))
        device = Device(config)
        await device.load()
        exchange.renew(5)
        await device.attach(offer(exchange, 5))
        assert await device.draft(5, 1, [4], K) == [K]
        drafted.append(exchange.read_drafts(5, 1, [4], [K])[0])
        device.close()
    file.write_text(before)
    assert not set(drafted[0]) & set(drafted[1])


async def test_a_round_that_an_attachment_overtook_is_not_drafted(config, exchange):
    """On their way to the device, rounds and attachments of two verifiers can pass each other."""
    device = Device(config)
    await device.load()
    for generation in (5, 6):
        exchange.renew(generation)
        await device.attach(offer(exchange, generation))
        assert await device.draft(generation, 1, [1], 2) == [2]
    assert await device.draft(5, 2, [1], 2) is None
    device.detach(5)
    assert await device.draft(6, 2, [1], 2) == [2]
    device.detach(6)
    assert await device.draft(6, 3, [1], 2) is None
    device.close()


def read_only_mappings(exchange):
    lines = open("/proc/self/maps").read().splitlines()  # noqa: SIM115
    return sum("r--s" in line and str(exchange.target_path) in line for line in lines)


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_the_memory_is_let_go_of_when_the_stream_ends(client, exchange, is_cancelled):
    await client.attach(5)
    call = await client.open_stream(5)
    await client.ask(call, generation=5, round=1, slots=[1, 4], num_tokens=K)
    assert read_only_mappings(exchange) == 1
    await client.attach(6)
    await until(lambda: read_only_mappings(exchange) == 1)
    call = await client.open_stream(6)
    call.cancel() if is_cancelled else await call.done_writing()
    await until(lambda: read_only_mappings(exchange) == 0)
    assert (await client.attach(7)).name == "drafter"


async def test_health_and_no_reflection(client):
    health = await health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    call = reflection_pb2_grpc.ServerReflectionStub(client.channel).ServerReflectionInfo()
    assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


def slow_down(monkeypatch, seconds):
    """Makes every round take so long; the first request of a stream, which has no slots, is answered at once."""
    propose = MtpDrafter.propose

    def slowly(self, slots, num_tokens):
        time.sleep(seconds if slots else 0.0)
        return propose(self, slots, num_tokens)

    monkeypatch.setattr(MtpDrafter, "propose", slowly)


async def test_health_is_answered_while_it_drafts(client, monkeypatch):
    slow_down(monkeypatch, 0.3)
    await client.attach(5)
    call = await client.open_stream(5)
    drafting = asyncio.create_task(client.ask(call, generation=5, round=1, slots=[1], num_tokens=1))
    await asyncio.sleep(0.05)
    await health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest())
    assert not drafting.done()
    await drafting


async def test_stopping_ends_streams_after_their_round(client, monkeypatch):
    slow_down(monkeypatch, 0.1)
    await client.attach(5)
    call = await client.open_stream(5)
    await call.write(pb.DraftRequest(generation=5, round=1, slots=[1], num_tokens=1))
    await asyncio.sleep(0.03)
    started = time.monotonic()
    stopping = asyncio.create_task(client.server.stop(10.0))
    assert list((await call.read()).num_tokens) == [1]
    assert await refusal(call.read()) == (grpc.StatusCode.UNAVAILABLE, "the drafter is about to stop")
    await stopping
    assert time.monotonic() - started < 2.0, "an idle stream does not use up the time to drain"


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"listen": "127.0.0.1:0"}, ConfigError, "--listen must be unix:"),
        ({"num_speculative_tokens": 0}, ConfigError, "--num-speculative-tokens"),
        ({"num_speculative_tokens": 65}, ConfigError, "--num-speculative-tokens"),
        ({"threads": -1}, ConfigError, "--threads"),
        ({"device": "gpu"}, ConfigError, "--device must be cpu, cuda or cuda:NUMBER, not 'gpu'"),
        ({"device": "cuda:99"}, ConfigError, r"--device cuda:99: \d+ CUDA devices are visible here"),
        ({"draft_model": "/nowhere"}, CheckpointError, "/nowhere"),
        ({"target": "/nowhere"}, CheckpointError, "/nowhere"),
    ],
)
async def test_settings_it_cannot_start_with(config, tmp_path, settings, error, match):
    with pytest.raises(error, match=match):
        await run(replace(config, **settings))
    assert "drafter.sock" not in os.listdir(tmp_path)


async def test_a_pair_that_does_not_fit_is_refused_at_the_start(config, tmp_path):
    other, _ = make_tiny_pair(tmp_path / "other", hidden_size=48)
    with pytest.raises(CheckpointError, match="backbone_hidden_size is 32 in the drafter, 48 in the target"):
        await run(replace(config, target=str(other)))


def start_process(config):
    imports = "import uvloop; from tandem.drafter.service import run; from tandem.drafter.config import DrafterConfig"
    program = f"{imports}; uvloop.run(run({config!r}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, "-c", program], env=environment)


async def test_a_killed_process_is_followed_by_another_drafter(config, decoding, exchange, monkeypatch, caplog):
    """Killed between two rounds; the next drafter serves here, until a signal ends it."""
    monkeypatch.setattr(drafter_link, "RETRY_SECONDS", 0.02)
    caplog.set_level("INFO")
    drafts = Drafts(expected(decoding, exchange, [1, 4]))
    with start_process(config) as first:
        async with linked(config.listen, exchange) as link:
            assert await play_round(link, [1, 4]) == drafts
            first.kill()
            await until(lambda: link.info is None)
            assert not link.begin(wanted([1], 1))
            second = asyncio.create_task(run(config))
            await until(lambda: link.info)
            assert await play_round(link, [1, 4]) == drafts
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(second, 2)
            await until(lambda: link.info is None)
    assert f"drafter ready on {config.listen}" in [record.getMessage() for record in caplog.records]


def test_it_needs_no_more_than_the_targets_config(pair, tmp_path, config):
    """The target's weights are the verifier's affair."""
    folder = tmp_path / "config-only"
    folder.mkdir()
    (folder / "config.json").write_bytes((pair[0] / "config.json").read_bytes())

    async def start():
        async with open_drafter(replace(config, target=str(folder))) as drafter:
            assert drafter.address == config.listen

    asyncio.run(start())
