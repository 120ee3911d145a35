"""The service that verifiers call: one attachment at a time, and a stream of rounds. Who drafts is behind it."""

import logging
import time
from collections.abc import AsyncIterator
from typing import Protocol

from tandem.core.errors import Draining, InvalidRequest, Unavailable
from tandem.drafter.draft_traces import DraftTraces
from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.drafter.v1 import drafter_service_pb2_grpc as pb_grpc
from tandem.drafter.verifier_stream import Context, VerifierStream
from tandem.engine.draft_source import DrafterInfo
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


class Drafting(Protocol):
    """What makes the drafts of one attachment at a time."""

    async def attach(self, request: pb.AttachRequest) -> None:
        """Takes up an attachment. If that works, the one before is let go of.

        Raises:
            InvalidRequest: it is not offered what it can draft from; the one before stays.
        """
        ...

    async def draft(self, request: pb.DraftRequest) -> pb.DraftResponse | None:
        """Answers a round; None if that generation is not attached any more."""
        ...

    def detach(self, generation: int) -> None:
        """Lets go of that attachment, if it is the one there is."""
        ...


class DrafterService(pb_grpc.DrafterServiceServicer):
    """Hands over to `Drafting` and waits."""

    def __init__(self, drafting: Drafting, info: DrafterInfo, metrics: Metrics) -> None:
        """Nobody is attached yet."""
        self._drafting = drafting
        self._metrics = metrics
        self._info = info
        self._generation: int | None = None
        self._streams: set[VerifierStream] = set()

    async def Attach(self, request: pb.AttachRequest, context: Context) -> pb.AttachResponse:
        """Takes up a verifier, and lets go of any other."""
        await self._drafting.attach(request)
        self._generation = request.generation
        self.end_streams(Unavailable("another verifier attached"))
        logger.info("verifier attached: target %s", request.target_revision[:64])
        return pb.AttachResponse(
            name=self._info.name,
            num_speculative_tokens=self._info.num_speculative_tokens,
            revision=self._info.revision,
        )

    async def Draft(
        self, requests: AsyncIterator[pb.DraftRequest], context: Context
    ) -> AsyncIterator[pb.DraftResponse]:
        """Answers round after round. The verifier is let go of when its stream ends."""
        stream, traces = VerifierStream(), DraftTraces()
        self._streams.add(stream)
        try:
            while request := await stream.read(context):
                started_at, began = time.time_ns(), time.perf_counter()
                traces.enter(request.traces)
                response = await self._draft(stream, request)
                if request.slots:
                    self._metrics.observe(names.DRAFT_SECONDS, time.perf_counter() - began)
                    self._metrics.count(names.DRAFTER_TOKENS, sum(response.num_tokens))
                    traces.count(request.slots, response.num_tokens, started_at)
                yield response
        finally:
            traces.close()
            self._streams.discard(stream)
            if stream.generation is not None and stream.generation == self._generation:
                self._generation = None
                self._drafting.detach(stream.generation)
                logger.info("verifier detached")

    def end_streams(self, reason: Unavailable) -> None:
        """Ends every stream after the round that it is in."""
        for stream in self._streams:
            stream.end(reason)

    def stop(self) -> None:
        """Ends every stream because the process is about to end."""
        self.end_streams(Draining("the drafter is about to stop"))

    async def _draft(self, stream: VerifierStream, request: pb.DraftRequest) -> pb.DraftResponse:
        if request.generation != self._generation:
            raise InvalidRequest("generation", "is not attached")
        stream.generation = self._generation
        response = await self._drafting.draft(request)
        if response is None:
            raise InvalidRequest("generation", "is not attached any more")
        return response
