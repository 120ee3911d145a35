"""Rounds that are launched before the host knows what came of the ones before.

While a round runs on the device, the next one stands in its queue already: the host reads results a round late, and the
device never waits for it. That needs sequences which only decode, and whose next tokens depend on nothing that the host
holds. In any other round the host takes part, once those under way have been settled.

A sequence that ends is noticed a round late. What the surplus round wrote for it is dropped; blocks are reserved for
the rows of all rounds that may be under way, and rows beyond them write where nobody reads. Where all sequences are so
near their last token that none may be left, the host waits for results after all.
"""

from collections import deque
from collections.abc import Sequence as Many
from dataclasses import dataclass

from tandem.core.sequence import Sequence
from tandem.engine.ahead_source import AheadSource
from tandem.engine.batch_sizes import batch_size, batch_sizes
from tandem.engine.draft_policy import Candidate, Drafting, DraftPolicy, Judged, RoundReport, StepTaken
from tandem.engine.draft_source import DraftSource
from tandem.engine.limits import EngineLimits
from tandem.engine.scheduler import Scheduler
from tandem.engine.shared_tables import SharedTables
from tandem.engine.steady_round import Member, RoundShape
from tandem.engine.steady_runner import Launched, SteadyRunner
from tandem.engine.step import Chosen
from tandem.kv_cache.kv_allocator import KvAllocator
from tandem.models.progress import Progress

_REACHES = (2047, 16383, 65535)  # positions: rounds over short texts launch less


@dataclass(frozen=True)
class Settled:
    """What a round gave one sequence."""

    sequence: Sequence
    chosen: Chosen
    num_drafts: int  # that could have stood


@dataclass(frozen=True)
class _Round:
    """A round under way."""

    launched: Launched
    sequences: Many[Sequence]
    max_accepted: Many[int]

    def has(self, sequence: Sequence) -> bool:
        """Whether a sequence takes part."""
        return any(one is sequence for one in self.sequences)


class RunAhead:
    """Launches steady rounds and settles them, oldest first. Used by the engine's thread only."""

    def __init__(
        self,
        scheduler: Scheduler,
        kv: KvAllocator,
        tables: SharedTables,
        runner: SteadyRunner,
        drafter: DraftSource | None,
        policy: DraftPolicy,
        draft_counts: Many[int],
    ) -> None:
        """Takes the parts.

        Args:
            scheduler: knows who decodes.
            kv: holds the blocks.
            tables: what the device was told of them.
            runner: launches.
            drafter: an `AheadSource`, or nobody.
            policy: plans drafts; made for that one drafter.
            draft_counts: numbers of drafts that rounds are captured for, rising from 0. A round of fewer drafts goes
                through the next larger one.
        """
        self._scheduler, self._kv, self._tables, self._runner = scheduler, kv, tables, runner
        self._drafter, self._policy = drafter, policy
        assert draft_counts[0] == 0 and list(draft_counts) == sorted(draft_counts)
        self._draft_counts = draft_counts
        self._rounds: deque[_Round] = deque()

    @property
    def num_under_way(self) -> int:
        """Rounds that were launched and not settled."""
        return len(self._rounds)

    def capture(self, progress: Progress | None = None) -> None:
        """Before anything runs: makes all rounds cheap to launch."""
        shapes = captured_shapes(self._scheduler.limits, self._draft_counts)
        for done, shape in enumerate(shapes, start=1):
            self._runner.capture(shape)
            if progress:
                progress(done, len(shapes))

    def is_possible(self) -> bool:
        """Whether the next round could be a steady one, as far as sequences go."""
        scheduler = self._scheduler
        decoding = scheduler.decoding
        return (
            bool(decoding)
            and len(decoding) == scheduler.num_running
            and not scheduler.can_admit()
            and all(map(_is_plain, decoding))
        )

    def launch(self) -> bool:
        """Launches a round, if there can be one now."""
        if not self.is_possible():
            return False
        # Who has no more tokens left than there are rounds under way will have ended in the last of them.
        sequences = [one for one in self._scheduler.decoding if one.num_tokens_left > self._num_rounds_of(one)]
        # If all may have ended by then, it is better to know: a round for nobody keeps the device from who comes next.
        if not any(one.num_tokens_left > self._num_rows_of(one) for one in sequences):
            return False
        limits = self._scheduler.limits
        size = batch_size(len(sequences), limits.max_sequences)
        counts = _fitting(self._draft_counts, size, limits)
        wanted = min(self._num_drafts(sequences), counts[-1])
        ends = [self._end_of(one, wanted + 1) for one in sequences]
        if not all(self._kv.reserve(one.sequence_id, end) for one, end in zip(sequences, ends, strict=True)):
            return False
        slots = [self._scheduler.slot(one) for one in sequences]
        max_accepted = [min(one.num_speculative_tokens, wanted) for one in sequences]
        members = [
            Member(slot, most, self._new_blocks(one, slot))
            for one, slot, most in zip(sequences, slots, max_accepted, strict=True)
        ]
        furthest = self._furthest(sequences)
        reach = next(reach for reach in _reaches(limits) if reach >= furthest)

        def draft() -> int:
            assert isinstance(self._drafter, AheadSource)
            return self._drafter.draft_ahead(slots, wanted)

        def shape_of(num_drafts: int) -> RoundShape:
            return RoundShape(size, next(count for count in counts if count >= num_drafts), reach)

        launched = self._runner.launch(shape_of, members, draft if wanted else lambda: 0)
        self._rounds.append(_Round(launched, sequences, [min(most, launched.num_drafts) for most in max_accepted]))
        return True

    def settle(self) -> list[Settled]:
        """Waits for the oldest round; what it gave the sequences that still run."""
        settled_round = self._rounds.popleft()
        launched = settled_round.launched
        num_drafts = launched.num_drafts
        settled, judged = [], []
        for sequence, most, row in zip(
            settled_round.sequences, settled_round.max_accepted, launched.wait(), strict=False
        ):
            if sequence.finish_reason is None:
                accepted = row[-1]
                settled.append(Settled(sequence, Chosen(row[: accepted + 1], accepted, []), most))
                judged.append(Judged(sequence.sequence_id, 0, len(sequence.committed), most, accepted, accepted + 1))
        drafting, stepping = launched.seconds()
        count = len(settled_round.sequences)
        self._policy.learn(
            RoundReport(
                judged if num_drafts else (),
                [Drafting(0, count, num_drafts, drafting, True)] if num_drafts else (),
                StepTaken(count, count * launched.shape.num_rows, stepping),
            )
        )
        return settled

    def forget(self) -> None:
        """Waits for all rounds under way, and drops what they gave."""
        while self._rounds:
            self._rounds.popleft().launched.wait()

    def close(self) -> None:
        """Drops what was captured. A round that is under way is nobody's any more."""
        self._runner.close()

    def _num_drafts(self, sequences: Many[Sequence]) -> int:
        info = self._drafter.info if self._drafter else None
        if info is None:
            return 0
        candidates = [Candidate(one.sequence_id, max(0, self._scheduler.num_useful_drafts(one))) for one in sequences]
        plans = self._policy.plan(candidates, [info.num_speculative_tokens])
        return min(max((plan.num_verified for plan in plans), default=0), info.num_speculative_tokens)

    def _num_rounds_of(self, sequence: Sequence) -> int:
        return sum(one.has(sequence) for one in self._rounds)

    def _num_rows_of(self, sequence: Sequence) -> int:
        """Tokens that the rounds under way give it at most."""
        return sum(one.launched.num_drafts + 1 for one in self._rounds if one.has(sequence))

    def _furthest(self, sequences: Many[Sequence]) -> int:
        """Position that no row stands beyond, in a round launched now."""
        return max(len(one.committed) for one in sequences) + self._scheduler.limits.rows_ahead - 1

    def _end_of(self, sequence: Sequence, num_rows: int) -> int:
        """Tokens that need a block, once the rounds under way and one of `num_rows` have accepted every draft."""
        last = sequence.num_prompt_tokens + sequence.stopping.max_tokens - 1  # the last token allowed has no KV
        return min(len(sequence.committed) - 1 + self._num_rows_of(sequence) + num_rows, last)

    def _new_blocks(self, sequence: Sequence, slot: int) -> list[tuple[str, int, int]]:
        return [
            (new.group, new.first + number, block_id)
            for new in self._tables.take_new(sequence.sequence_id, slot)
            for number, block_id in enumerate(new.block_ids)
        ]


def captured_shapes(limits: EngineLimits, draft_counts: Many[int]) -> list[RoundShape]:
    """Every shape that a round may have; large ones first, whose memory the others then share."""
    return [
        RoundShape(size, count, reach)
        for reach in reversed(_reaches(limits))
        for size in reversed(batch_sizes(limits.max_sequences))
        for count in reversed(_fitting(draft_counts, size, limits))
    ]


def _fitting(draft_counts: Many[int], size: int, limits: EngineLimits) -> Many[int]:
    """Those of `draft_counts` with which a round of `size` sequences has no more rows than a step may have; the last
    one is as many as there can be."""
    most = min(draft_counts[-1], limits.max_step_tokens // size - 1)
    return [*(count for count in draft_counts if count < most), most]


def _is_plain(sequence: Sequence) -> bool:
    """Whether its next tokens depend on nothing that the host holds."""
    sampling = sequence.sampling
    return not (
        sequence.grammar
        or sequence.output.logprobs
        or sampling.has_penalties
        or sampling.logit_bias
        or sampling.suppress_token_ids
        or sequence.stopping.min_tokens
    )


def _reaches(limits: EngineLimits) -> list[int]:
    """Positions that no row stands beyond, for rounds over ever longer texts."""
    return [*(reach for reach in _REACHES if reach < limits.max_context), limits.max_context + limits.rows_ahead]
