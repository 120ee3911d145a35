"""One request on its way through the verifiers: one writes the text, and when it is lost another goes on."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from tandem.core.errors import DeadlineExceeded, EngineFault, InvalidRequest, NoReplica, RetryableError, TandemError
from tandem.gateway.prefix_memory import prefix_digests
from tandem.gateway.text_so_far import TextSoFar
from tandem.gateway.verifier_link import VerifierLink
from tandem.gateway.verifier_pool import VerifierPool
from tandem.internal.v1 import verifier_service_pb2
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.v1 import model_service_pb2

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.1
# A text that one verifier after the other breaks at may be what breaks them.
MAX_LOSSES = 4
MAX_FAULTS = 1


class Relay:
    """Passes on what verifiers answer to one request.

    One that refuses a request before its text began is left for another at once, each being asked once. One that is
    lost later is replaced as soon as there is another that takes the text.
    """

    def __init__(
        self,
        verifiers: VerifierPool,
        request: verifier_service_pb2.GenerateRequest,
        model: model_service_pb2.Model,
        timeout_seconds: float | None,
        resume_seconds: float,
        metrics: Metrics,
    ) -> None:
        """Prepares.

        Args:
            verifiers: to choose from.
            request: of the client.
            model: that it was made for.
            timeout_seconds: until the client's deadline; None: there is none.
            resume_seconds: most time without any verifier, once the text began.
            metrics: counts texts that went on.
        """
        self._verifiers = verifiers
        self._text = TextSoFar(request)
        self._model = model
        self._digests = prefix_digests(request.prompt_token_ids, request.cache_salt)
        self._resume_seconds = resume_seconds
        self._metrics = metrics
        now = asyncio.get_running_loop().time()
        self._deadline = None if timeout_seconds is None else now + timeout_seconds
        self._refused_by: set[VerifierLink] = set()  # since the last message
        self._give_up_at: float | None = None  # set from a loss to the next message
        self._num_losses = self._num_faults = 0

    async def responses(self) -> AsyncGenerator[verifier_service_pb2.GenerateResponse, None]:
        """The messages of the whole text, as from one verifier but for the statistics in the last one.

        Closing the iterator frees the sequence.

        Raises:
            TandemError: as the last verifier raised it.
        """
        link = self._verifiers.choose(self._model, self._digests)
        if link is None:
            raise NoReplica("no verifier answers")
        while True:
            try:
                async with aclosing(link.generate(self._text.request, self._seconds_left())) as responses:
                    async for response in responses:
                        if self._give_up_at is not None:
                            self._give_up_at = None
                            self._refused_by.clear()
                        if self._text.take(response):
                            yield response
                return
            except InvalidRequest as error:
                if not self._text.has_started:
                    raise
                raise EngineFault(f"the rest of a text was refused: {error}") from None
            except (RetryableError, EngineFault) as error:
                link = await self._replacement(link, error)

    async def _replacement(self, lost: VerifierLink, error: TandemError) -> VerifierLink:
        """Who goes on in place of a verifier that raised `error`; raises that where nobody does."""
        loop = asyncio.get_running_loop()
        self._refused_by.add(lost)
        self._num_losses += isinstance(error, NoReplica)
        self._num_faults += isinstance(error, EngineFault)
        if self._num_losses > MAX_LOSSES or self._num_faults > MAX_FAULTS or not self._verifiers.has_others(lost):
            raise error
        if self._give_up_at is None:
            self._give_up_at = loop.time() + self._resume_seconds
        while (link := self._verifiers.choose(self._model, self._digests, self._refused_by)) is None:
            if not self._text.has_started or loop.time() >= self._give_up_at:
                raise error
            await asyncio.sleep(RETRY_SECONDS)
            self._refused_by.clear()
        logger.info("goes on at %s after %d tokens: %s", link.address, self._text.num_tokens, error)
        if self._text.has_started:
            self._metrics.count(names.RESUMED_STREAMS, reason=error.reason)
        return link

    def _seconds_left(self) -> float | None:
        if self._deadline is None:
            return None
        seconds = self._deadline - asyncio.get_running_loop().time()
        if seconds <= 0:
            raise DeadlineExceeded("the deadline passed before the text was complete")
        return seconds
