"""Same token ids as the target alone: verifier and drafter as services, over their sockets and shared memory."""

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager, nullcontext

import pytest

from tandem.demo import DEMO_DRAFTER, DEMO_TARGET
from tandem.internal.v1 import verifier_service_pb2 as pb
from tandem.internal.v1 import verifier_service_pb2_grpc as pb_grpc
from tandem.rpc.channel import open_channel
from tandem.telemetry import metrics as names
from tandem.verifier.config import FP8, VerifierConfig
from tandem.verifier.service import open_verifier
from tests.lossless.conftest import MAX_TOKENS, TEMPERATURES
from tests.lossless.hostile_drafter import hostile_drafter

ATTACH_SECONDS = 60
NUM_8_BITS = 12  # prompts


@pytest.fixture(scope="module")
def drafter_socket(tmp_path_factory):
    """A real drafter in a process of its own."""
    address = f"unix:{tmp_path_factory.mktemp('drafter')}/drafter.sock"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tandem.cli", "drafter", "--threads", "1", "--listen", address),
            *("--target", str(DEMO_TARGET), "--draft-model", str(DEMO_DRAFTER), "--num-speculative-tokens", "7"),
        ]
    )
    yield address
    process.terminate()
    assert process.wait(timeout=30) == 0


@asynccontextmanager
async def attached_verifier(tmp_path, drafter, **settings):
    """A verifier with that drafter, and a stub that calls it."""
    config = VerifierConfig(
        target=str(DEMO_TARGET),
        listen=f"unix:{tmp_path}/verifier.sock",
        drafter=drafter,
        num_speculative_tokens=7,
        threads=1,
        draft_timeout_ms=2000.0,
        # Every round drafts, whatever this machine makes of it.
        **{"kv_tokens": 8192, "adaptive_k": False, **settings},
    )
    async with open_verifier(config) as verifier, open_channel(verifier.address) as channel:
        work = [asyncio.create_task(coroutine) for coroutine in verifier.background]
        async with asyncio.timeout(ATTACH_SECONDS):
            while not verifier.metrics.value(names.DRAFTER_ATTACHED):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        yield verifier.metrics, pb_grpc.VerifierServiceStub(channel)
        for task in work:
            task.cancel()


async def test_8_bits(reference, drafter_socket, tmp_path):
    """Weights, keys and values of 8 bits: what a drafter of its own process makes of them changes no text."""
    formats = {"weights": FP8, "kv_dtype": FP8}
    async with attached_verifier(tmp_path, drafter_socket, **formats) as (metrics, stub):
        texts = {}
        for k in (0, 4):
            sequences = reference.sequences(k, 0.0)[:NUM_8_BITS]
            texts[k] = await asyncio.gather(*(generate(stub, sequence) for sequence in sequences))
        accepted = metrics.value(names.SPEC_ACCEPTED_TOKENS)
    assert texts[4] == texts[0]
    assert accepted > NUM_8_BITS * MAX_TOKENS / 3


async def generate(stub, sequence, max_tokens=MAX_TOKENS):
    sampling = sequence.sampling
    request = pb.GenerateRequest(
        prompt_token_ids=sequence.prompt_token_ids,
        sampling={
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        },
        max_tokens=max_tokens,
        ignore_eos=True,
        num_speculative_tokens=sequence.num_speculative_tokens,
    )
    return [token_id async for response in stub.Generate(request) for token_id in response.round.token_ids]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(
    ("drafter", "k"),  # one that is not asked is not hostile
    [("honest", 0), ("honest", 1), ("honest", 4), ("honest", 7), ("hostile", 1), ("hostile", 7)],
)
async def test_alone_and_in_a_mixed_batch(reference, drafter_socket, tmp_path, drafter, k, temperature):
    """All prompts together, and then a share of them alone: each prompt in some of the cases."""
    hostile_socket = f"unix:{tmp_path}/hostile.sock"
    serving = nullcontext() if drafter == "honest" else hostile_drafter(hostile_socket)
    address = drafter_socket if drafter == "honest" else hostile_socket
    async with serving, attached_verifier(tmp_path, address) as (metrics, stub):
        sequences, share = reference.sequences(k, temperature), reference.share(k, temperature)
        mixed = await asyncio.gather(*(generate(stub, sequence) for sequence in sequences))
        alone = [await generate(stub, sequences[number]) for number in share]
    reference.check(temperature, mixed, f"{drafter} and split, K={k}, T={temperature}, mixed")
    reference.check(temperature, alone, f"{drafter} and split, K={k}, T={temperature}, alone", share)
    num_rounds = metrics.value(names.SPEC_ROUNDS)
    if drafter == "honest":
        # It did draft: at least one token in three rounds was accepted.
        assert metrics.value(names.SPEC_ACCEPTED_TOKENS) > (num_rounds / 3 if k else -1)
    elif k:
        assert metrics.value(names.SPEC_DRAFT_TOKENS) > num_rounds / 3
        assert metrics.value(names.SPEC_FALLBACKS, reason="invalid") > 0
