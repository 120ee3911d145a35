"""A target shared by two ranks on GPUs against the whole one on one of them: the same texts.

On two GPUs the ranks meet over NCCL, and rounds are captured as graphs. On one, both ranks share it and meet as ranks
of a CPU do, which no graph can hold.
"""

import os
import shutil
import signal
import time
from pathlib import Path

import grpc
import pytest
import torch
from tokenizers import Tokenizer

from tandem.demo import DEMO_DRAFTER, DEMO_TARGET, held_out_prompts
from tandem.engine.device_drafter import DeviceDrafter
from tandem.engine.draft_source import DrafterInfo
from tandem.engine.in_process_ahead import InProcessAhead
from tandem.internal.v1 import verifier_service_pb2 as pb
from tandem.internal.v1 import verifier_service_pb2_grpc as pb_grpc
from tandem.models.gemma4.weights import load_drafter, load_target
from tandem.rpc.channel import open_channel
from tests.checkpoints import VARIANTS, make_tiny_pair
from tests.engines import LIMITS, EngineUnderTest, new_sequence
from tests.lossless.test_tensor_parallel import children, line_with, service
from tests.unit.models.leader import Leader
from tests.unit.models.paged import BLOCK_SIZE

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(300),  # kernels are compiled first
]

SIZE, K = 2, 4
WIDER = {  # the kernels want heads of 16 or more
    "hidden_size": 64,
    "intermediate_size": 128,
    "head_dim": 32,
    "global_head_dim": 64,
    "moe_intermediate_size": 32,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name) for name in ("demo", "26b-a4b", "e4b")}
    shutil.copytree(DEMO_TARGET, made["demo"] / "target")
    shutil.copytree(DEMO_DRAFTER, made["demo"] / "drafter")
    for name in ("26b-a4b", "e4b"):
        make_tiny_pair(made[name], **{**VARIANTS[name], **WIDER})
    return made


def prompts_of(name: str) -> list[list[int]]:
    if name != "demo":
        return [list(range(2 + n, 2 + n + 11 * (n + 1))) for n in range(3)]
    tokenizer = Tokenizer.from_file(str(DEMO_TARGET / "tokenizer.json"))
    return [tokenizer.encode(text).ids[-150:] for text in held_out_prompts()[:6]]


def texts(target, folder: Path, name: str, k: int, to_capture: bool):
    def drafts_of(inputs):
        network = load_drafter(folder / "drafter", target.config, torch.float32, "cuda", inputs.embedding)
        shape = (inputs.spec.num_slots, inputs.spec.max_draft_tokens)
        drafter = DeviceDrafter(network, inputs, torch.zeros(shape, dtype=torch.int64, device="cuda"))
        return InProcessAhead(drafter, DrafterInfo("mtp", K, "test"))

    limits = {"max_sequences": 4, "max_draft_tokens": K, "block_size": BLOCK_SIZE}
    under_test = EngineUnderTest(target, drafts_of if k else lambda _: [], type(LIMITS)(**{**vars(LIMITS), **limits}))
    if to_capture:
        under_test.engine.capture()
    under_test.engine.start()
    try:
        return under_test.generate(
            [new_sequence(n, prompt, max_tokens=24, k=k) for n, prompt in enumerate(prompts_of(name))]
        )
    finally:
        under_test.engine.stop()


def test_two_ranks_write_what_one_does(folders):
    to_capture = torch.cuda.device_count() >= SIZE
    leader = Leader(SIZE, "cuda", list(folders.values()))
    try:
        for name, folder in folders.items():
            expected = texts(load_target(folder / "target", torch.float32, "cuda"), folder, name, 0, False)
            with leader.target(folder) as shared:
                for k in (0, K):
                    assert texts(shared, folder, name, k, to_capture) == expected, (name, k)
        assert leader.num_rounds_ahead > 0
        leader.close()
    finally:
        leader.kill()


@pytest.mark.skipif(torch.cuda.device_count() < SIZE, reason="needs two GPUs")
async def test_a_killed_rank_ends_the_verifier_in_mid_run(tmp_path):
    """Its leader's GPU waits for it; nothing hangs."""
    address = f"unix:{tmp_path}/verifier.sock"
    arguments = ("--device=cuda", "--drafter=none", f"--tensor-parallel={SIZE}", f"--exchange-directory={tmp_path}")
    with service("verifier", address, *arguments, "--max-sequences=4", "--max-context=1024") as verifier:
        line_with(verifier, "verifier ready on")
        async with open_channel(address) as channel:
            stub = pb_grpc.VerifierServiceStub(channel)
            request = pb.GenerateRequest(prompt_token_ids=[2, 5, 7], max_tokens=1000, ignore_eos=True)
            with pytest.raises(grpc.aio.AioRpcError):
                async for response in stub.Generate(request):
                    for rank in children(verifier) if response.HasField("round") else ():
                        os.kill(rank, signal.SIGKILL)
        killed_at = time.monotonic()
        assert "rank 1 of 2 was killed by signal 9" in line_with(verifier, "error:")
        assert verifier.wait(20) == 1
        assert time.monotonic() - killed_at < 10
