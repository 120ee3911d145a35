"""The service that verifiers call: one attachment at a time, and a stream of rounds."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc

from tandem.core.errors import Draining, ExchangeError, InvalidRequest, Unavailable
from tandem.drafter.device import Device
from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.drafter.v1 import drafter_service_pb2_grpc as pb_grpc
from tandem.engine.draft_source import DrafterInfo
from tandem.exchange.layout import LAYOUT_VERSION
from tandem.exchange.spec import ExchangeSpec, SharedLayer

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class _Stream:
    """A verifier's stream, which can be ended between two rounds."""

    def __init__(self) -> None:
        self.generation: int | None = None  # known with the first request
        self.end_reason: Unavailable | None = None
        self._reading: asyncio.Timeout | None = None

    def end(self, reason: Unavailable) -> None:
        """Lets the running round be answered, and reads no further one."""
        if self.end_reason is None and self._reading:
            self._reading.reschedule(asyncio.get_running_loop().time())
        self.end_reason = reason

    async def read(self, context: Context) -> pb.DraftRequest | None:
        """The next request; None when the verifier has none any more.

        Raises:
            Unavailable: the stream was ended.
        """
        if self.end_reason:
            raise self.end_reason
        try:
            async with asyncio.timeout(None) as self._reading:
                request = await context.read()
        except TimeoutError:
            assert self.end_reason
            raise self.end_reason from None
        finally:
            self._reading = None
        return None if request is grpc.aio.EOF else request


class DrafterService(pb_grpc.DrafterServiceServicer):
    """Hands over to the device and waits."""

    def __init__(self, device: Device, info: DrafterInfo) -> None:
        """Nobody is attached yet."""
        self._device = device
        self._info = info
        self._generation: int | None = None
        self._streams: set[_Stream] = set()

    async def Attach(self, request: pb.AttachRequest, context: Context) -> pb.AttachResponse:
        """Maps a verifier's memory, and lets go of any other's."""
        if request.layout_version != LAYOUT_VERSION:
            raise InvalidRequest("layout_version", f"must be {LAYOUT_VERSION}")
        memory = request.shared_memory
        try:
            await self._device.attach(_spec(memory), request.generation, memory.target_path, memory.drafts_path)
        except ExchangeError as error:
            raise InvalidRequest("shared_memory", str(error)) from None
        self._generation = request.generation
        self.end_streams(Unavailable("another verifier attached"))
        logger.info("verifier attached: target %s, %d slots", request.target_revision[:64], memory.num_slots)
        return pb.AttachResponse(
            name=self._info.name,
            num_speculative_tokens=self._info.num_speculative_tokens,
            revision=self._info.revision,
        )

    async def Draft(
        self, requests: AsyncIterator[pb.DraftRequest], context: Context
    ) -> AsyncIterator[pb.DraftResponse]:
        """Answers round after round. The verifier's memory is let go of when its stream ends."""
        stream = _Stream()
        self._streams.add(stream)
        try:
            while request := await stream.read(context):
                yield await self._draft(stream, request)
        finally:
            self._streams.discard(stream)
            if stream.generation is not None and stream.generation == self._generation:
                self._generation = None
                self._device.detach(stream.generation)
                logger.info("verifier detached")

    def end_streams(self, reason: Unavailable) -> None:
        """Ends every stream after the round that it is in."""
        for stream in self._streams:
            stream.end(reason)

    def stop(self) -> None:
        """Ends every stream because the process is about to end."""
        self.end_streams(Draining("the drafter is about to stop"))

    async def _draft(self, stream: _Stream, request: pb.DraftRequest) -> pb.DraftResponse:
        if request.generation != self._generation:
            raise InvalidRequest("generation", "is not attached")
        stream.generation = self._generation
        counts = await self._device.draft(request.generation, request.round, request.slots, request.num_tokens)
        if counts is None:
            raise InvalidRequest("generation", "is not attached any more")
        return pb.DraftResponse(generation=request.generation, round=request.round, num_tokens=counts)


def _spec(memory: pb.SharedMemory) -> ExchangeSpec:
    return ExchangeSpec(
        dtype=memory.dtype,
        num_slots=memory.num_slots,
        max_draft_tokens=memory.max_draft_tokens,
        max_blocks=memory.max_blocks,
        block_size=memory.block_size,
        vocabulary_size=memory.vocabulary_size,
        hidden_size=memory.hidden_size,
        layers=tuple(
            SharedLayer(layer.group, layer.num_blocks, layer.num_kv_heads, layer.head_dim) for layer in memory.layers
        ),
    )
