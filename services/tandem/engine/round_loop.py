"""One round after the other: drafts in, step, judge, drafts asked for, tokens out. Runs on the engine's thread alone.

Speculative decoding after Leviathan, Kalman, Matias, "Fast inference from transformers via speculative decoding"
(2023), with a judge that compares tokens instead of distributions: see `sampling.sampler`.
"""

import logging
from collections.abc import Mapping
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import Protocol

from tandem.core.sequence import FinishReason, Sequence
from tandem.engine.draft_source import DraftSource, Fallback, Wanted
from tandem.engine.output import SequenceEnd, SequenceOutput
from tandem.engine.scheduler import Scheduler
from tandem.engine.step import Chosen, ScheduledSequence, TokenLogprob
from tandem.kv_cache.kv_allocator import KvAllocator
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


class Runner(Protocol):
    """Computes steps, such as a `ModelRunner`."""

    vocabulary_size: int

    def enter(self, sequence: Sequence, slot: int) -> None:
        """A sequence takes a slot."""
        ...

    def run(self, step: Tokens[ScheduledSequence]) -> tuple[list[Chosen | None], list[list[TokenLogprob]]]:
        """Computes a step."""
        ...


@dataclass(frozen=True)
class _Asked:
    """Drafts that were asked for and not collected yet."""

    drafter: DraftSource
    num_tokens: int
    sequences: list[Sequence]
    lengths: list[int]  # committed tokens of each when asked


@dataclass
class RoundLoop:
    """The state between two rounds."""

    scheduler: Scheduler
    runner: Runner
    kv: KvAllocator
    drafters: Tokens[DraftSource]  # the first of them that can drafts
    metrics: Metrics
    _asked: _Asked | None = None
    _prompt_logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)  # by sequence id, until sent

    def run_round(self, outputs: list[SequenceOutput]) -> None:
        """Runs one step and asks for the drafts of the next one, before anybody reads the outputs.

        Args:
            outputs: is given what the round emits; holds what was emitted before a fault, too.
        """
        num_preemptions = self.scheduler.num_preemptions
        step = self.scheduler.schedule(self._collect())
        self.metrics.count(names.PREEMPTIONS, self.scheduler.num_preemptions - num_preemptions)
        assert step or not self.scheduler.sequences, "nobody can run, and nobody ever will"
        if not step:
            return
        for scheduled in step:
            if scheduled.start == 0:  # new, or to be computed again
                self.runner.enter(scheduled.sequence, scheduled.slot)
                self._prompt_logprobs.pop(scheduled.sequence.sequence_id, None)
        chosen, prompt_logprobs = self.runner.run(step)
        for scheduled, result, about_prompt in zip(step, chosen, prompt_logprobs, strict=True):
            if about_prompt:
                self._prompt_logprobs.setdefault(scheduled.sequence.sequence_id, []).extend(about_prompt)
            output = self._commit(scheduled, result)
            if output:
                outputs.append(output)
        self.metrics.count(names.STEPS)
        self._ask()

    def end(self, sequence: Sequence, reason: FinishReason) -> SequenceOutput:
        """Ends a sequence from outside, with no more tokens."""
        sequence.finish_reason = reason
        return SequenceOutput(sequence.sequence_id, [], end=self._finish(sequence))

    def forget_drafts(self) -> None:
        """Drafts that are under way belong to a round that failed."""
        if self._asked:
            self._asked.drafter.collect()
        self._asked = None

    def _commit(self, scheduled: ScheduledSequence, chosen: Chosen | None) -> SequenceOutput | None:
        sequence, is_verify = scheduled.sequence, scheduled.sequence.is_decoding
        sequence.num_computed_tokens += scheduled.num_committed_rows
        if chosen is None:
            self.kv.release_unseen(sequence.sequence_id, sequence.num_computed_tokens)
            return None
        kept = sequence.commit(chosen.token_ids)
        num_accepted = min(chosen.num_accepted, len(kept))
        sequence.num_computed_tokens += len(kept) - 1  # the last one never has KV; drafts before it do
        num_drafts = len(scheduled.draft_token_ids) if is_verify else None
        if num_drafts is not None:
            sequence.stats.record(num_drafts, num_accepted)
            self._count_round(num_drafts, num_accepted)
        self.metrics.count(names.OUTPUT_TOKENS, len(kept))
        if not sequence.finish_reason:
            self.kv.release_unseen(sequence.sequence_id, sequence.num_computed_tokens)
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
        return SequenceEnd(sequence.finish_reason, sequence.stop_token_id, sequence.stats)

    def _ask(self) -> None:
        """Asks for the next round's drafts."""
        wanted = [s for s in self.scheduler.decoding if self.scheduler.num_useful_drafts(s)]
        if not wanted:
            return
        counts = [self.scheduler.num_useful_drafts(sequence) for sequence in wanted]
        asked_for = [
            Wanted(self.scheduler.slot(sequence), sequence.committed, count)
            for sequence, count in zip(wanted, counts, strict=True)
        ]
        drafter = next((drafter for drafter in self.drafters if drafter.begin(asked_for)), None)
        if drafter:
            self._asked = _Asked(drafter, max(counts), wanted, [len(sequence.committed) for sequence in wanted])

    def _collect(self) -> Mapping[int, Tokens[int]]:
        """Draft tokens by sequence id: what was asked for, came, and is fit to be verified."""
        asked, self._asked = self._asked, None
        if asked is None:
            return {}
        drafts = asked.drafter.collect()
        fallback = drafts.fallback
        found: dict[int, Tokens[int]] = {}
        if len(drafts.token_ids) != len(asked.sequences):
            fallback = fallback or Fallback.INVALID
        else:
            for sequence, length, token_ids in zip(asked.sequences, asked.lengths, drafts.token_ids, strict=True):
                if len(token_ids) > asked.num_tokens or not self._are_known(token_ids):
                    fallback = fallback or Fallback.INVALID
                elif len(sequence.committed) == length:
                    found[sequence.sequence_id] = sequence.possible_drafts(token_ids)
        if fallback:
            self.metrics.count(names.SPEC_FALLBACKS, reason=fallback.value)
        return found

    def _are_known(self, token_ids: Tokens[int]) -> bool:
        return all(0 <= token_id < self.runner.vocabulary_size for token_id in token_ids)

    def _count_round(self, num_drafts: int, num_accepted: int) -> None:
        self.metrics.count(names.SPEC_ROUNDS)
        self.metrics.count(names.SPEC_DRAFT_TOKENS, num_drafts)
        for position in range(num_accepted):
            self.metrics.count(names.SPEC_ACCEPTED_TOKENS, position=position)
