"""A verifier over a tiny pair on a real socket, and what a test asks of it."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest

from tandem.internal.v1 import verifier_service_pb2 as pb
from tandem.internal.v1 import verifier_service_pb2_grpc as pb_grpc
from tandem.rpc.channel import open_channel
from tandem.telemetry import metrics as names
from tandem.verifier.config import VerifierConfig
from tandem.verifier.service import open_verifier

PROMPT = [5, 6, 7, 8, 9, 10]


@asynccontextmanager
async def verifier(pair, tmp_path, **settings):
    """A warm verifier and a stub that calls it."""
    defaults = {"drafter": "inprocess", "draft_model": str(pair[1]), "kv_tokens": 2048, "max_sequences": 4}
    config = VerifierConfig(target=str(pair[0]), listen=f"unix:{tmp_path}/verifier.sock", **(defaults | settings))
    async with open_verifier(config) as opened, open_channel(opened.address) as channel:
        opened.background[-1].close()
        yield opened, pb_grpc.VerifierServiceStub(channel)


def greedy(**fields):
    return pb.GenerateRequest(
        **(
            {"prompt_token_ids": PROMPT, "sampling": {"temperature": 0.0}, "max_tokens": 12, "ignore_eos": True}
            | fields
        )
    )


async def tokens(stub, request):
    return [i async for response in stub.Generate(request) for i in response.round.token_ids]


async def ended(opened, count, *reasons):
    """Waits until `count` sequences have ended for one of these reasons."""
    async with asyncio.timeout(10):
        # The engine's thread counts, and tells nobody.
        while sum(opened.metrics.value(names.REQUESTS_FINISHED, reason=r) for r in reasons) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value
