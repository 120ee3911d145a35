"""One round after the other: drafts in, step, judge, drafts asked for, tokens out. Runs on the engine's thread alone.

Speculative decoding after Leviathan, Kalman, Matias, "Fast inference from transformers via speculative decoding"
(2023), with a judge that compares tokens instead of distributions: see `sampling.sampler`.
"""

import time
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import Protocol

from tandem.core.sequence import FinishReason, Sequence
from tandem.engine.draft_policy import StepTaken
from tandem.engine.limits import ROUNDS_AHEAD
from tandem.engine.output import SequenceEnd, SequenceOutput
from tandem.engine.run_ahead import RunAhead
from tandem.engine.scheduler import Scheduler
from tandem.engine.speculation import Speculation
from tandem.engine.step import Chosen, ScheduledSequence, TokenLogprob
from tandem.kv_cache.kv_allocator import KvAllocator
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics

OnEnter = Callable[[int, Sequence], None]  # told which sequence has taken which slot


class Runner(Protocol):
    """Computes steps, such as a `ModelRunner`."""

    vocabulary_size: int

    def enter(self, sequence: Sequence, slot: int) -> None:
        """A sequence takes a slot."""
        ...

    def run(self, step: Tokens[ScheduledSequence]) -> tuple[list[Chosen | None], list[list[TokenLogprob]]]:
        """Computes a step."""
        ...


@dataclass
class RoundLoop:
    """The state between two rounds."""

    scheduler: Scheduler
    runner: Runner
    kv: KvAllocator
    speculation: Speculation
    metrics: Metrics
    ahead: RunAhead | None = None  # None: the host takes part in every round
    on_enter: OnEnter | None = None
    _prompt_logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)  # by sequence id, until sent

    def run_round(self, outputs: list[SequenceOutput]) -> None:
        """Runs one step and asks for the drafts of the next one, before anybody reads the outputs.

        Where rounds can run ahead, the next one is launched, and an earlier one settled.

        Args:
            outputs: is given what the round emits; holds what was emitted before a fault, too.
        """
        if self.ahead and not self.scheduler.decoding:
            self.ahead.forget()  # the sequences of these rounds have all ended
        is_launched = self.ahead is not None and self.ahead.launch()
        if self.ahead is None or not self.ahead.num_under_way:
            self._run_step(outputs)
        elif not is_launched or self.ahead.num_under_way == ROUNDS_AHEAD:
            self._settle(self.ahead, outputs)

    def _run_step(self, outputs: list[SequenceOutput]) -> None:
        num_preemptions, num_evictions = self.scheduler.num_preemptions, self.kv.num_evictions
        step = self.scheduler.schedule(self.speculation.collect())
        self.metrics.count(names.PREEMPTIONS, self.scheduler.num_preemptions - num_preemptions)
        self.metrics.count(names.KV_EVICTIONS, self.kv.num_evictions - num_evictions)
        assert step or not self.scheduler.sequences, "nobody can run, and nobody ever will"
        if not step:
            return
        for scheduled in step:
            if scheduled.is_entering:
                self._enter(scheduled)
        is_decode = all(scheduled.sequence.is_decoding for scheduled in step)
        started_at = time.perf_counter()
        chosen, prompt_logprobs = self.runner.run(step)
        seconds = time.perf_counter() - started_at
        for scheduled, result, about_prompt in zip(step, chosen, prompt_logprobs, strict=True):
            if about_prompt:
                self._prompt_logprobs.setdefault(scheduled.sequence.sequence_id, []).extend(about_prompt)
            output = self._commit(scheduled, result)
            if output:
                outputs.append(output)
        self.metrics.count(names.STEPS)
        # Rounds that run ahead draft for themselves. Until they can, prompts go first: their steps are full of rows,
        # and would wait for the drafts.
        if self.ahead is None or not (self.ahead.is_possible() or self.scheduler.has_prompts()):
            self.speculation.ask()
        self.speculation.learn(
            {output.sequence_id: output.token_ids for output in outputs},
            StepTaken(len(step), sum(scheduled.num_rows for scheduled in step), seconds) if is_decode else None,
        )

    def end(self, sequence: Sequence, reason: FinishReason) -> SequenceOutput:
        """Ends a sequence from outside, with no more tokens."""
        sequence.finish_reason = reason
        return SequenceOutput(sequence.sequence_id, [], end=self._finish(sequence))

    def forget(self) -> None:
        """What is under way belongs to a round that failed."""
        self.speculation.forget()
        if self.ahead:
            self.ahead.forget()

    def _settle(self, ahead: RunAhead, outputs: list[SequenceOutput]) -> None:
        """Takes in what came of the oldest round under way."""
        for settled in ahead.settle():
            sequence = settled.sequence
            sequence.num_computed_tokens += 1
            outputs.append(self._emit(sequence, settled.chosen, settled.num_drafts))
        self.metrics.count(names.STEPS)

    def _enter(self, scheduled: ScheduledSequence) -> None:
        """A sequence begins, or begins again after a preemption."""
        sequence = scheduled.sequence
        self.runner.enter(sequence, scheduled.slot)
        self._prompt_logprobs.pop(sequence.sequence_id, None)
        if sequence.num_cached_tokens is None:
            sequence.num_cached_tokens = min(scheduled.start, sequence.num_prompt_tokens)
            self.metrics.count(names.CACHED_TOKENS, sequence.num_cached_tokens)
            self.metrics.count(names.PREFIX_HITS, scheduled.start > 0)
            sequence.entered_at = time.monotonic()
        if self.on_enter:
            self.on_enter(scheduled.slot, sequence)

    def _commit(self, scheduled: ScheduledSequence, chosen: Chosen | None) -> SequenceOutput | None:
        sequence, is_verify = scheduled.sequence, scheduled.sequence.is_decoding
        sequence.num_computed_tokens += scheduled.num_committed_rows
        if chosen is None:
            self.scheduler.settle(sequence)
            return None
        return self._emit(sequence, chosen, len(scheduled.draft_token_ids) if is_verify else None)

    def _emit(self, sequence: Sequence, chosen: Chosen, num_drafts: int | None) -> SequenceOutput:
        """Commits what was chosen for a sequence; `num_drafts` is None where nothing was verified."""
        kept = sequence.commit(chosen.token_ids)
        num_accepted = min(chosen.num_accepted, len(kept))
        sequence.num_computed_tokens += len(kept) - 1  # the last one never has KV; drafts before it do
        if num_drafts is not None:
            sequence.stats.record(num_drafts, num_accepted)
            self._count_round(num_drafts, num_accepted)
        self.metrics.count(names.OUTPUT_TOKENS, len(kept))
        self.scheduler.settle(sequence)  # one that ends here, too: a conversation goes on from its end
        return SequenceOutput(
            sequence_id=sequence.sequence_id,
            token_ids=kept,
            num_accepted_tokens=num_accepted,
            num_draft_tokens=num_drafts,
            logprobs=tuple(chosen.logprobs[: len(kept)]),
            prompt_logprobs=tuple(self._prompt_logprobs.pop(sequence.sequence_id, ())),
            end=self._finish(sequence) if sequence.finish_reason else None,
        )

    def _finish(self, sequence: Sequence) -> SequenceEnd:
        assert sequence.finish_reason
        self.scheduler.remove(sequence)
        self._prompt_logprobs.pop(sequence.sequence_id, None)
        self.metrics.count(names.REQUESTS_FINISHED, reason=sequence.finish_reason.value)
        if sequence.finish_reason is FinishReason.CANCELLED:
            self.metrics.count(names.REQUESTS_CANCELLED, stage=_stage(sequence))
        return SequenceEnd(sequence.finish_reason, sequence.stop_token_id, sequence.stats)

    def _count_round(self, num_drafts: int, num_accepted: int) -> None:
        self.metrics.count(names.SPEC_ROUNDS)
        self.metrics.count(names.SPEC_DRAFT_TOKENS, num_drafts)
        for position in range(num_accepted):
            self.metrics.count(names.SPEC_ACCEPTED_TOKENS, position=position)


def _stage(sequence: Sequence) -> str:
    """How far a sequence has come."""
    if sequence.entered_at is None:
        return "queue"
    return "decode" if sequence.num_output_tokens else "prefill"
