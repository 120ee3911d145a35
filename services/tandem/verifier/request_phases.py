"""One request's way through the verifier, as spans and durations: queue, prefill, decode."""

import time

from opentelemetry import trace
from opentelemetry.trace import Span

from tandem.core.sequence import Sequence
from tandem.engine.output import SequenceOutput
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.telemetry.tracing import TRACER, Clock, record_phase


class RequestPhases:
    """Told of each output, and of the end. Rounds are events of the decode span: a span each would drown the rest."""

    def __init__(self, sequence: Sequence, metrics: Metrics) -> None:
        """A request that arrived now, with the span of its call around it."""
        self._sequence = sequence
        self._metrics = metrics
        self._clock = Clock()
        self._context = trace.set_span_in_context(trace.get_current_span())
        self._arrived_at = time.monotonic()
        self._first_at: float | None = None
        self._decode: Span = trace.INVALID_SPAN

    def take(self, output: SequenceOutput) -> None:
        """Some tokens came."""
        if not output.token_ids:
            return
        if self._first_at is None:
            self._begin_decode(output)
        elif self._decode.is_recording():
            self._decode.add_event(
                "round",
                {
                    "tandem.tokens": len(output.token_ids),
                    "tandem.draft_tokens": output.num_draft_tokens or 0,
                    "tandem.accepted_tokens": output.num_accepted_tokens,
                },
            )

    def close(self) -> None:
        """Nothing more will come, for whatever reason."""
        now = time.monotonic()
        if self._first_at is None:
            self._leave_queue_and_prefill(now)
            return
        self._metrics.observe(names.DECODE_SECONDS, now - self._first_at)
        stats, reason = self._sequence.stats, self._sequence.finish_reason
        self._decode.set_attributes(
            {
                "gen_ai.usage.output_tokens": self._sequence.num_output_tokens,
                "tandem.rounds": stats.num_rounds,
                "tandem.draft_tokens": stats.num_draft_tokens,
                "tandem.accepted_tokens": stats.num_accepted_tokens,
                "tandem.finish_reason": reason.value if reason else "cancelled",
            }
        )
        self._decode.end(self._clock.nanoseconds(now))

    def _begin_decode(self, output: SequenceOutput) -> None:
        self._first_at = time.monotonic()
        self._leave_queue_and_prefill(self._first_at)
        self._decode = TRACER.start_span("decode", self._context, start_time=self._clock.nanoseconds(self._first_at))

    def _leave_queue_and_prefill(self, now: float) -> None:
        """Records both, as far as the sequence came by `now`."""
        entered_at = self._sequence.entered_at
        record_phase("queue", self._context, self._clock, self._arrived_at, entered_at or now, {})
        self._metrics.observe(names.QUEUE_SECONDS, (entered_at or now) - self._arrived_at)
        if entered_at is not None:
            found = {
                "gen_ai.usage.input_tokens": self._sequence.num_prompt_tokens,
                "gen_ai.usage.cache_read.input_tokens": self._sequence.num_cached_tokens or 0,
            }
            record_phase("prefill", self._context, self._clock, entered_at, now, found)
            self._metrics.observe(names.PREFILL_SECONDS, now - entered_at)
