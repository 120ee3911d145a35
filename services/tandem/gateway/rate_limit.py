"""How many requests a caller may make."""

import time
from collections import defaultdict
from collections.abc import Callable

import grpc

from tandem.core.errors import RateLimited
from tandem.gateway.authentication import current_caller
from tandem.rpc.interceptors import Continuation, Handler
from tandem.v1 import generation_service_pb2

GENERATION_SERVICE: str = generation_service_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name


class TokenBucket:
    """Holds a minute's requests at most and fills evenly."""

    def __init__(self, requests_per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts full.

        Args:
            requests_per_minute: at least 1.
            clock: seconds that only rise.
        """
        self._capacity = float(requests_per_minute)
        self._per_second = requests_per_minute / 60
        self._clock = clock
        self._level = self._capacity
        self._filled_at = clock()

    def take(self) -> None:
        """Takes one request out.

        Raises:
            RateLimited: it is empty; says when it will not be.
        """
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._level < 1:
            raise RateLimited("too many requests", retry_after_seconds=(1 - self._level) / self._per_second)
        self._level -= 1


class RateLimitInterceptor(grpc.aio.ServerInterceptor):
    """One bucket for each API key, or one for all callers where no keys are asked for."""

    def __init__(self, requests_per_minute: int) -> None:
        """Allows each caller `requests_per_minute` calls of `GenerationService`."""
        self._buckets: defaultdict[int, TokenBucket] = defaultdict(lambda: TokenBucket(requests_per_minute))

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Counts the call.

        Raises:
            RateLimited: the caller had its share.
        """
        if handler_call_details.method.startswith(f"/{GENERATION_SERVICE}/"):
            self._buckets[current_caller()].take()
        return await continuation(handler_call_details)
