"""A target that two processes share, with a drafter in a third: the texts are those of one process alone."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer

from tandem.demo import DEMO_DRAFTER, DEMO_TARGET, held_out_prompts
from tandem.internal.v1 import verifier_service_pb2 as pb
from tandem.internal.v1 import verifier_service_pb2_grpc as pb_grpc
from tandem.models.gemma4.weights import load_target
from tandem.rpc.channel import open_channel
from tests.engines import new_sequence, running

PROMPT_LENGTHS = (24, 80, 150)  # tokens; the sliding window has 128
MAX_TOKENS = 16


@contextmanager
def service(name, listen, *arguments):
    """A service in a process of its own, killed at the end if it still runs."""
    command = [sys.executable, "-m", "tandem.cli", name, f"--listen={listen}", f"--target={DEMO_TARGET}", "--threads=1"]
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_with(process, text):
    """Reads what a process says until a line has `text`; that line."""
    return next(line for line in process.stderr if text in line)


def children(process):
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


async def generate(stub, prompt, k):
    """The tokens after a prompt, and how many of them were drafted."""
    request = pb.GenerateRequest(
        prompt_token_ids=prompt,
        sampling={"temperature": 0.0},
        max_tokens=MAX_TOKENS,
        ignore_eos=True,
        num_speculative_tokens=k,
    )
    rounds = [response.round async for response in stub.Generate(request)]
    return [i for one in rounds for i in one.token_ids], sum(one.num_drafted_tokens for one in rounds)


async def test_two_ranks_write_what_one_does_and_end_together(tmp_path):
    tokenizer = Tokenizer.from_file(str(DEMO_TARGET / "tokenizer.json"))
    prompts = [
        tokenizer.encode(text).ids[-length:] for text, length in zip(held_out_prompts(), PROMPT_LENGTHS, strict=False)
    ]
    with running(load_target(DEMO_TARGET, torch.float32, "cpu"), lambda _: []) as alone:
        expected = alone.generate([new_sequence(n, prompt, MAX_TOKENS, k=0) for n, prompt in enumerate(prompts)])
    drafter_address, address = f"unix:{tmp_path}/drafter.sock", f"unix:{tmp_path}/verifier.sock"
    with (
        service("drafter", drafter_address, f"--draft-model={DEMO_DRAFTER}", "--num-speculative-tokens=4"),
        service(
            *("verifier", address, f"--drafter={drafter_address}", "--tensor-parallel=2", "--kv-tokens=8192"),
            *("--draft-timeout-ms=2000", f"--exchange-directory={tmp_path}"),
        ) as verifier,
    ):
        line_with(verifier, "verifier ready on")
        line_with(verifier, "attached")
        async with open_channel(address) as channel:
            stub = pb_grpc.VerifierServiceStub(channel)
            for k in (0, 4):
                answers = await asyncio.gather(*(generate(stub, prompt, k) for prompt in prompts))
                assert [token_ids for token_ids, _ in answers] == expected, k
                assert bool(k) == any(num_drafted for _, num_drafted in answers)
        (rank,) = children(verifier)
        os.kill(rank, signal.SIGKILL)
        assert "rank 1 of 2 was killed by signal 9" in line_with(verifier, "error:")
        assert verifier.wait(20) == 1
