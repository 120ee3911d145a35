"""What a caller may take: requests and tokens a minute, and requests at a time."""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from tandem.core.errors import RateLimited
from tandem.gateway.authentication import current_caller
from tandem.rpc.interceptors import Context, Continuation, Handler, surround
from tandem.v1 import generation_service_pb2

GENERATION_SERVICE: str = generation_service_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name
BUSY_RETRY_SECONDS = 1.0  # nobody knows when a caller's own requests end


class TokenBucket:
    """Holds a minute's share at most and fills evenly."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts full.

        Args:
            per_minute: at least 1.
            clock: seconds that only rise.
        """
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._level = self._capacity
        self._filled_at = clock()

    def require(self, what: str) -> None:
        """Checks that one is in it.

        Args:
            what: is counted, for the message.

        Raises:
            RateLimited: there is not; says when there will be.
        """
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._level < 1:
            raise RateLimited(f"too many {what}", retry_after_seconds=(1 - self._level) / self._per_second)

    def take(self, number: int = 1) -> None:
        """Takes out what was used, even more than is in it: what is used before it is known is owed."""
        self._level -= number


@dataclass(frozen=True)
class CallerLimits:
    """What each caller may take."""

    requests_per_minute: int  # 0: any number
    tokens_per_minute: int  # 0: any number
    streams: int


class Allowance:
    """What one caller has left."""

    def __init__(self, limits: CallerLimits) -> None:
        """Starts with all of it."""
        self._requests = TokenBucket(limits.requests_per_minute) if limits.requests_per_minute else None
        self._tokens = TokenBucket(limits.tokens_per_minute) if limits.tokens_per_minute else None
        self._max_streams = limits.streams
        self._num_streams = 0

    def check(self) -> None:
        """Whether a request could begin now.

        Raises:
            RateLimited: one of them is reached.
        """
        if self._num_streams >= self._max_streams:
            raise RateLimited("too many requests at a time", retry_after_seconds=BUSY_RETRY_SECONDS)
        if self._tokens:
            self._tokens.require("tokens")
        if self._requests:
            self._requests.require("requests")

    def admit(self) -> None:
        """Counts a request that begins now.

        Raises:
            RateLimited: as `check`.
        """
        self.check()
        if self._requests:
            self._requests.take()
        self._num_streams += 1

    def release(self) -> None:
        """Counts the end of an admitted request."""
        self._num_streams -= 1

    def spend(self, num_tokens: int) -> None:
        """Counts tokens as they become known; later requests wait until they are paid for."""
        if self._tokens:
            self._tokens.take(num_tokens)


_allowance: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


def spend_tokens(num_tokens: int) -> None:
    """Counts tokens of the current call against its caller's share."""
    allowance = _allowance.get()
    assert allowance, "only admitted requests have tokens"
    allowance.spend(num_tokens)


class Allowances:
    """One allowance for each API key, or one for all callers where no keys are asked for; the same at every door."""

    def __init__(self, limits: CallerLimits) -> None:
        """Allows each caller `limits`."""
        self._allowances: defaultdict[bytes, Allowance] = defaultdict(lambda: Allowance(limits))

    def check(self) -> None:
        """Whether this task's caller could begin a request now.

        Raises:
            RateLimited: it had its share.
        """
        self._allowances[current_caller()].check()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request of this task's caller while inside, and its tokens.

        Raises:
            RateLimited: the caller had its share.
        """
        allowance = self._allowances[current_caller()]
        allowance.admit()
        _allowance.set(allowance)
        try:
            yield
        finally:
            allowance.release()


class RateLimitInterceptor(grpc.aio.ServerInterceptor):
    """Limits all calls of `GenerationService`."""

    def __init__(self, allowances: Allowances) -> None:
        """Counts against `allowances`."""
        self._allowances = allowances

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Refuses before the message is read, and counts once it is: many may wait for theirs.

        Raises:
            RateLimited: the caller had its share.
        """
        if not handler_call_details.method.startswith(f"/{GENERATION_SERVICE}/"):
            return await continuation(handler_call_details)
        self._allowances.check()
        handler = await continuation(handler_call_details)
        return surround(handler, self._admitted) if handler else None

    @asynccontextmanager
    async def _admitted(self, _request: Any, _context: Context) -> AsyncIterator[None]:
        with self._allowances.admitted():
            yield
