"""The drafter's service as a process: its start, its health, its end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from tandem.core.errors import CheckpointError, ConfigError
from tandem.drafter.service import open_drafter, run
from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.engine.draft_source import Drafts
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.verifier import drafter_link
from tests.checkpoints import make_tiny_pair
from tests.engines import wanted
from tests.rpc.drafter_service.sharing import (
    expected,
    linked,
    play_round,
    refusal,
    until,
)


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
