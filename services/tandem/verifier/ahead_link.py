"""Drafts from another process on a GPU, in rounds that the GPU orders.

    post      the verifier's stream, behind the inputs of the round: they are written
    request   over the control stream, at once: while the GPU may still compute the inputs
    wait      the verifier's stream: what follows comes after the drafts
    answer    over the control stream: the drafter's stream waits for the inputs, drafts, and ends the wait

So no host waits for a device, and the device waits for the drafter alone. It must not wait for one that is late or
dead: its waits are then ended from here, with whatever stands in the drafts. That costs drafts, never a token.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from tandem.engine.draft_source import Fallback, Wanted
from tandem.engine.limits import ROUNDS_AHEAD
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.verifier.attachment import Attachment
from tandem.verifier.cuda_carrier import CudaCarrier
from tandem.verifier.drafter_link import DrafterLink, Round

if TYPE_CHECKING:  # a package comes with it that the CPU can do without
    from tandem.exchange.cuda_exchange import CudaExchange

STALLED_SECONDS = 2.0  # a device that has not come to the drafts by then waits for a drafter that will not draft
AGAIN_SECONDS = 0.2  # a drafter that comes too late after all can undo a release


class AheadLink(DrafterLink):
    """A `DrafterLink` over a `CudaExchange` that is also an `AheadSource`."""

    max_outstanding = ROUNDS_AHEAD  # the first two rounds are asked for one right after the other

    def __init__(
        self, address: str, exchange: "CudaExchange", target_revision: str, timeout_seconds: float, metrics: Metrics
    ) -> None:
        """Knows no drafter yet; see `DrafterLink`. The caller closes `exchange`."""
        super().__init__(address, CudaCarrier(exchange), target_revision, timeout_seconds, metrics)
        self._exchange = exchange

    @property
    def drafts(self) -> torch.Tensor:  # [num_slots, max_draft_tokens] int64
        """Where the drafts of each slot stand."""
        return self._exchange.drafts

    def draft_ahead(self, slots: Sequence[int], num_tokens: int) -> int:
        """Asks for a round, and lets the current stream wait for it; how many tokens each slot will be given."""
        asked = self._ask([Wanted(slot, (), num_tokens, sequence_id=slot) for slot in slots])
        if asked is None:
            return 0
        self._exchange.wait(asked.request.round)
        self._on_loop(self._watch, asked)
        return asked.request.num_tokens

    async def _receive(self, attachment: Attachment) -> None:
        try:
            await super()._receive(attachment)
        finally:
            self._exchange.release(self._number)

    def _watch(self, asked: Round) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(self._timeout_seconds, self._expect_answer, asked)
        loop.call_later(STALLED_SECONDS, self._expect_drafts, asked.request.round)

    def _expect_answer(self, asked: Round) -> None:
        if isinstance(asked.outcome, Fallback):
            self._exchange.release(asked.request.round)
            self._metrics.count(names.SPEC_FALLBACKS, reason=asked.outcome.value)
            self._log.add(asked.outcome)

    def _expect_drafts(self, round_number: int, is_told: bool = False) -> None:
        if self._exchange.has_passed(round_number):
            return
        self._exchange.release(round_number)
        if not is_told:
            self._metrics.count(names.SPEC_FALLBACKS, reason=Fallback.LATE.value)
            self._log.add(Fallback.LATE)
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._expect_drafts, round_number, True)
