"""The demo pair as two processes on a GPU, in bfloat16: the text of the target alone, whatever the drafter does."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import torch
from tokenizers import Tokenizer

from tandem.demo import DEMO_DRAFTER, DEMO_TARGET, held_out_prompts
from tandem.internal.v1 import verifier_service_pb2 as pb
from tandem.internal.v1 import verifier_service_pb2_grpc as pb_grpc
from tandem.rpc.channel import open_channel
from tandem.telemetry import metrics as names
from tandem.verifier import drafter_link
from tandem.verifier.config import VerifierConfig
from tandem.verifier.service import open_verifier

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(300),
]

K = 7
NUM_PROMPTS = 8
MAX_TOKENS = 200
BATCHES = (1, 10, 10)  # drafters that start together and are killed one after the other; the first one warms up
START_SECONDS = 120
LOST_BYTES = 16 << 20  # a leaked context has hundreds


def start_drafter(socket, device="cuda", within=()):
    """`within` is a command that runs it, and ends with it."""
    command = [sys.executable, "-m", "tandem.cli", "drafter", f"--device={device}", f"--listen=unix:{socket}"]
    pair = [f"--target={DEMO_TARGET}", f"--draft-model={DEMO_DRAFTER}", f"--num-speculative-tokens={K}"]
    return subprocess.Popen([*within, *command, *pair])


async def until(condition, seconds):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def verifier(folder, drafter, **settings):
    config = VerifierConfig(
        target=str(DEMO_TARGET),
        listen=f"unix:{folder}/verifier.sock",
        drafter=drafter,
        device="cuda",
        dtype="bfloat16",
        num_speculative_tokens=K,
        kv_tokens=8192,
        **settings,
    )
    async with open_verifier(config) as verifier, open_channel(verifier.address) as channel:
        work = [asyncio.create_task(coroutine) for coroutine in verifier.background]
        yield verifier.metrics, pb_grpc.VerifierServiceStub(channel)
        for task in work:
            task.cancel()


@pytest.fixture(scope="module")
def prompts():
    tokenizer = Tokenizer.from_file(str(DEMO_TARGET / "tokenizer.json"))
    return [tokenizer.encode(text).ids[-100:] for text in held_out_prompts()[:NUM_PROMPTS]]


async def generate(stub, prompt, number, k=K):
    """One text: greedy for even numbers, else sampled."""
    sampling = {"temperature": 0.8 * (number % 2), "top_k": 64, "top_p": 0.95, "seed": number}
    request = pb.GenerateRequest(
        prompt_token_ids=prompt, sampling=sampling, max_tokens=MAX_TOKENS, ignore_eos=True, num_speculative_tokens=k
    )
    return [token_id async for response in stub.Generate(request) for token_id in response.round.token_ids]


async def kill_one_that_drafts(spare, socket, metrics):
    """Lets a process that listens elsewhere draft, and kills it in the middle of a text."""
    path, process = spare
    path.rename(socket)
    await until(lambda: metrics.value(names.DRAFTER_ATTACHED), START_SECONDS)
    accepted = metrics.value(names.SPEC_ACCEPTED_TOKENS)
    await until(lambda: metrics.value(names.SPEC_ACCEPTED_TOKENS) > accepted + 20, 10)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    await until(lambda: not metrics.value(names.DRAFTER_ATTACHED), 10)


def free_bytes():
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


async def test_kill_9_again_and_again(prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(drafter_link, "MAX_RETRY_SECONDS", 0.4)  # whoever dies so often is dialled ever more rarely
    socket = tmp_path / "drafter.sock"
    async with verifier(tmp_path, f"unix:{socket}") as (metrics, stub):
        alone = [await generate(stub, prompt, number, k=0) for number, prompt in enumerate(prompts)]
        stopped = asyncio.Event()

        async def text_after_text():
            num_texts = 0
            while not stopped.is_set():
                number = num_texts % NUM_PROMPTS
                assert await generate(stub, prompts[number], number) == alone[number]
                num_texts += 1
            return num_texts

        streaming = asyncio.create_task(text_after_text())
        free = []
        for batch in BATCHES:
            paths = [tmp_path / f"spare-{number}.sock" for number in range(batch)]
            spares = [(path, start_drafter(path)) for path in paths]
            for path in paths:
                await until(path.exists, START_SECONDS)
            for spare in spares:
                await kill_one_that_drafts(spare, socket, metrics)
                assert not streaming.done(), "texts go on, and are right"
            free.append(free_bytes())
        stopped.set()
        print(f"{sum(BATCHES)} kills in {await streaming} texts; free bytes after {BATCHES}: {free}")
        assert metrics.value(names.DRAFTER_ATTACHMENTS) == sum(BATCHES)
        assert free[0] - free[-1] < LOST_BYTES


@asynccontextmanager
async def attached(folder, device="cuda", **settings):
    """A verifier whose drafter has come."""
    socket = folder / "drafter.sock"
    drafter = start_drafter(socket, device)
    try:
        async with verifier(folder, f"unix:{socket}", **settings) as (metrics, stub):
            await until(lambda: metrics.value(names.DRAFTER_ATTACHED), START_SECONDS)
            yield metrics, stub
    finally:
        drafter.kill()
        drafter.wait()


async def test_every_batch_writes_the_same(prompts, tmp_path):
    """Not one near-tie, for any number of texts at a time, drafted or not."""
    asked = [(prompts[number % NUM_PROMPTS], number) for number in range(32)]
    async with attached(tmp_path, batch_invariant=True) as (metrics, stub):
        alone = [await generate(stub, *one, k=0) for one in asked]
        for batch in (1, 8, 32):
            for k in (0, K):
                texts = await asyncio.gather(*(generate(stub, *one, k=k) for one in asked[:batch]))
                assert texts == alone[:batch]
        rounds, accepted = metrics.value(names.SPEC_ROUNDS), metrics.value(names.SPEC_ACCEPTED_TOKENS)
        assert accepted > 1000
        print(f"{rounds} rounds, {accepted} drafts accepted")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
async def test_a_drafter_on_another_gpu(prompts, tmp_path):
    async with attached(tmp_path, "cuda:1") as (metrics, stub):
        alone = [await generate(stub, prompt, number, k=0) for number, prompt in enumerate(prompts)]
        assert not metrics.value(names.SPEC_ACCEPTED_TOKENS)
        assert [await generate(stub, prompt, number) for number, prompt in enumerate(prompts)] == alone
        assert metrics.value(names.SPEC_ACCEPTED_TOKENS) > 500


REFUSED = {
    "IPC namespace": ("unshare", "--ipc"),
    "PID namespace": ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
    "CUDA_VISIBLE_DEVICES": ("env", "CUDA_VISIBLE_DEVICES=1"),
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_a_drafter_that_cannot_share_says_why_and_the_verifier_serves(prompts, tmp_path, caplog, reason):
    """A driver may share across namespaces; then it has to, and well."""
    within, socket = REFUSED[reason], tmp_path / "drafter.sock"
    if reason == "CUDA_VISIBLE_DEVICES" and torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    if subprocess.run([*within, "true"], check=False).returncode:  # noqa: ASYNC221
        pytest.skip("not allowed here")
    drafter = start_drafter(socket, within=within)
    try:
        async with verifier(tmp_path, f"unix:{socket}") as (metrics, stub):
            alone = await generate(stub, prompts[0], 0, k=0)

            def is_refused():
                return any(reason in record.message for record in caplog.records)

            await until(lambda: is_refused() or metrics.value(names.DRAFTER_ATTACHED), START_SECONDS)
            assert await generate(stub, prompts[0], 0) == alone and len(alone) == MAX_TOKENS
            assert is_refused() != bool(metrics.value(names.SPEC_ACCEPTED_TOKENS))
    finally:
        drafter.kill()
        drafter.wait()


async def test_a_drafter_on_the_cpu_says_what_it_lacks_and_the_verifier_serves(prompts, tmp_path, caplog):
    socket = tmp_path / "drafter.sock"
    drafter = start_drafter(socket, "cpu")
    try:
        async with verifier(tmp_path, f"unix:{socket}") as (metrics, stub):
            await until(lambda: any("--device cuda" in record.message for record in caplog.records), START_SECONDS)
            assert len(await generate(stub, prompts[0], 0)) == MAX_TOKENS
            assert not metrics.value(names.DRAFTER_ATTACHMENTS)
    finally:
        drafter.kill()
        drafter.wait()
