"""Verifier and drafter that share files, in namespaces of their own: what matters is that both see one directory."""

import asyncio
import subprocess
import sys

import pytest

from tandem.internal.v1 import verifier_service_pb2 as pb
from tandem.internal.v1 import verifier_service_pb2_grpc as pb_grpc
from tandem.rpc.channel import open_channel
from tandem.telemetry import metrics as names
from tandem.verifier.config import VerifierConfig
from tandem.verifier.service import open_verifier
from tests.checkpoints import make_tiny_pair

UNSHARE = ("unshare", "--user", "--map-root-user", "--kill-child", "--fork")
MAX_TOKENS = 8
START_SECONDS = 60


def start_drafter(pair, socket, *within):
    command = (sys.executable, "-m", "tandem.cli", "drafter", f"--target={pair[0]}", f"--draft-model={pair[1]}")
    return subprocess.Popen([*UNSHARE, *within, *command, f"--listen=unix:{socket}"])


async def until(condition):
    async with asyncio.timeout(START_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


async def write(stub):
    request = pb.GenerateRequest(prompt_token_ids=[5, 6, 7], max_tokens=MAX_TOKENS, ignore_eos=True)
    return [token_id async for response in stub.Generate(request) for token_id in response.round.token_ids]


async def test_whoever_sees_another_directory_says_so_and_other_namespaces_do_not_matter(tmp_path, caplog):
    if subprocess.run([*UNSHARE, "--mount", "--pid", "--ipc", "true"], check=False).returncode:  # noqa: ASYNC221
        pytest.skip("this machine allows no namespaces")
    pair = make_tiny_pair(tmp_path)
    exchange, socket, other = tmp_path / "exchange", tmp_path / "drafter.sock", tmp_path / "other.sock"
    exchange.mkdir()
    config = VerifierConfig(
        target=str(pair[0]),
        listen=f"unix:{tmp_path}/verifier.sock",
        drafter=f"unix:{socket}",
        exchange_directory=str(exchange),
        kv_tokens=1024,
        max_sequences=2,
        threads=1,
    )
    hide = ("sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(exchange))
    drafters = [
        start_drafter(pair, socket, "--mount", *hide),
        start_drafter(pair, other, "--pid", "--ipc"),
    ]
    try:
        async with open_verifier(config) as verifier, open_channel(verifier.address) as channel:
            work = [asyncio.create_task(coroutine) for coroutine in verifier.background]
            stub = pb_grpc.VerifierServiceStub(channel)
            told = "cannot open the file: No such file or directory; verifier and drafter must see one and the same"
            await until(lambda: any(told in record.message for record in caplog.records))
            alone = await write(stub)
            assert len(alone) == MAX_TOKENS and not verifier.metrics.value(names.DRAFTER_ATTACHMENTS)
            await until(other.exists)
            other.rename(socket)
            await until(lambda: verifier.metrics.value(names.DRAFTER_ATTACHED))
            assert await write(stub) == alone
            assert verifier.metrics.value(names.SPEC_DRAFT_TOKENS) > 0
            for task in work:
                task.cancel()
    finally:
        for drafter in drafters:
            drafter.kill()
            drafter.wait()
