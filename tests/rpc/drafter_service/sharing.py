"""A verifier's end of a drafter: the memory that it shares, and what it asks for."""

import asyncio
import time
from contextlib import asynccontextmanager

import grpc
import pytest

from tandem.core.sampling_params import SamplingParams
from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.drafter.v1 import drafter_service_pb2_grpc as pb_grpc
from tandem.engine.mtp_drafter import MtpDrafter
from tandem.exchange.offer import FileOffer
from tandem.exchange.shared_exchange import SharedExchange
from tandem.telemetry.metrics import Metrics
from tandem.verifier.drafter_link import DrafterLink
from tandem.verifier.memory_carrier import MemoryCarrier, shared_memory_of
from tests.engines import wanted

K = 4
SAMPLED = SamplingParams(temperature=0.9, top_k=20, top_p=0.95, seed=11)
LENGTHS = {"a": 5, "b": 41}


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
    assert await asyncio.to_thread(link.begin, wanted(slots, num_tokens))
    return await asyncio.to_thread(link.collect)


def expected(decoding, exchange, slots, num_tokens=K):
    return [tuple(ids) for ids in MtpDrafter(decoding.network, exchange.inputs).propose(slots, num_tokens)]


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 5.0)
    return caught.value.code(), caught.value.details()
