"""The gateway as a process: its start, its log, its end."""

import asyncio
import os
import signal
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tandem.core.errors import ConfigError
from tandem.gateway.config import GatewayConfig
from tandem.gateway.service import run


async def test_it_logs_its_settings_and_its_address_and_ends_on_a_signal(
    checkpoint, verifier, verifier_address, caplog
):
    caplog.set_level("INFO", logger="tandem")
    config = GatewayConfig(tokenizer=str(checkpoint), listen="127.0.0.1:0", verifier=verifier_address)
    running = asyncio.create_task(run(config))
    for _ in range(200):
        ready = [record.getMessage() for record in caplog.records if "gateway ready on" in record.getMessage()]
        if ready:
            break
        await asyncio.sleep(0.01)
    assert sum("max_output_tokens=8192" in record.getMessage() for record in caplog.records) == 1
    address = ready[0].rpartition(" ")[2]
    async with grpc.aio.insecure_channel(address) as channel:
        async for response in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
            if response.status == health_pb2.HealthCheckResponse.SERVING:
                break
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 2)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"tokenizer": "/nowhere"}, "does not exist"),
        ({"listen": "nowhere"}, "cannot listen"),
        ({"api_keys_file": "/nowhere"}, "cannot read API keys"),
    ],
)
async def test_settings_it_cannot_start_with(checkpoint, settings, match):
    config = GatewayConfig(**{"tokenizer": str(checkpoint), "listen": "127.0.0.1:0", **settings})
    with pytest.raises(ConfigError, match=match):
        await run(config)


def test_it_loads_neither_torch_nor_numpy():
    check = "import sys, tandem.gateway.service; sys.exit(bool({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60, env=environment)
