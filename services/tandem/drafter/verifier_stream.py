"""A verifier's stream of rounds, as its drafter reads it."""

import asyncio
from typing import Any

import grpc

from tandem.core.errors import Unavailable
from tandem.drafter.v1 import drafter_service_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]


class VerifierStream:
    """A stream that can be ended between two rounds."""

    def __init__(self) -> None:
        """Nobody is known to be at its other end."""
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
