"""How much a verifier has been asked for and has not given yet."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tandem.internal.v1 import verifier_service_pb2

# A request may ask for far more than it will get: nobody knows when its text ends.
MAX_EXPECTED_TOKENS = 512


@dataclass(eq=False)
class RequestWork:
    """What one request has left to do."""

    num_prompt_tokens: int  # to compute before its first token comes
    num_tokens_left: int  # that it may generate

    def take(self, response: verifier_service_pb2.GenerateResponse) -> None:
        """Counts off what a message brought."""
        self.num_prompt_tokens = 0
        self.num_tokens_left = max(0, self.num_tokens_left - len(response.round.token_ids))

    @property
    def num_tokens(self) -> int:
        """Tokens to compute, as far as anybody can tell."""
        return self.num_prompt_tokens + min(self.num_tokens_left, MAX_EXPECTED_TOKENS)


class Workload:
    """The requests that one verifier works on, for this gateway."""

    def __init__(self) -> None:
        """Starts idle."""
        self._works: set[RequestWork] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def num_tokens(self) -> int:
        """Outstanding tokens of all requests."""
        return sum(work.num_tokens for work in self._works)

    async def wait_until_idle(self) -> None:
        """Returns when no request is left."""
        await self._idle.wait()

    @contextmanager
    def of(self, request: verifier_service_pb2.GenerateRequest) -> Iterator[RequestWork]:
        """Counts `request` in for as long as the block runs."""
        num_given = len(request.output_token_ids)
        work = RequestWork(len(request.prompt_token_ids) + num_given, max(0, request.max_tokens - num_given))
        self._works.add(work)
        self._idle.clear()
        try:
            yield work
        finally:
            self._works.remove(work)
            if not self._works:
                self._idle.set()
