"""The drafter's part of each request's trace: one span a sequence, however many rounds it is drafted for."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from opentelemetry.trace import Span

from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.telemetry.tracing import TRACEPARENT, TRACER, context_from

IDLE_SECONDS = 1.0  # verifiers do not say when a sequence ends: who was not drafted for so long has ended
MAX_SLOTS = 4096


@dataclass
class _Drafted:
    """What was done for a sequence so far."""

    span: Span
    ended_at: int  # nanoseconds since 1970
    num_rounds: int = 0
    num_tokens: int = 0


class DraftTraces:
    """Spans of one verifier's slots. Costs nothing where no sequence is traced."""

    def __init__(self) -> None:
        """Nothing is traced."""
        self._traceparents: dict[int, str] = {}  # by slot
        self._drafted: dict[int, _Drafted] = {}  # by slot
        self._sweep: asyncio.TimerHandle | None = None

    def enter(self, traces: Iterable[pb.SlotTrace]) -> None:
        """Other sequences have taken these slots."""
        for one in traces:
            self._end(one.slot)
            self._traceparents.pop(one.slot, None)
            if one.traceparent and len(self._traceparents) < MAX_SLOTS:
                self._traceparents[one.slot] = one.traceparent

    def count(self, slots: Sequence[int], num_tokens: Sequence[int], started_at: int) -> None:
        """A round is over.

        Args:
            slots: drafted for.
            num_tokens: drafted for each of them.
            started_at: when the round began, nanoseconds since 1970.
        """
        if not self._traceparents:
            return
        now = time.time_ns()
        for slot, count in zip(slots, num_tokens, strict=True):
            if slot not in self._traceparents:
                continue
            drafted = self._drafted.get(slot)
            if drafted is None:
                parent = context_from({TRACEPARENT: self._traceparents[slot]})
                drafted = self._drafted[slot] = _Drafted(TRACER.start_span("draft", parent, start_time=started_at), now)
            drafted.ended_at = now
            drafted.num_rounds += 1
            drafted.num_tokens += count
        if self._drafted and self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end_idle)

    def close(self) -> None:
        """Ends every span."""
        for slot in list(self._drafted):
            self._end(slot)
        self._traceparents.clear()
        if self._sweep:
            self._sweep.cancel()

    def _end_idle(self) -> None:
        idle_since = time.time_ns() - int(IDLE_SECONDS * 1e9)
        for slot in [slot for slot, drafted in self._drafted.items() if drafted.ended_at <= idle_since]:
            self._end(slot)
        self._sweep = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end_idle) if self._drafted else None

    def _end(self, slot: int) -> None:
        drafted = self._drafted.pop(slot, None)
        if drafted:
            counts = {"tandem.rounds": drafted.num_rounds, "tandem.draft_tokens": drafted.num_tokens}
            drafted.span.set_attributes(counts)
            drafted.span.end(drafted.ended_at)
