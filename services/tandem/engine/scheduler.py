"""Who runs in the next step. Plain Python: no tensor, no clock, no lock."""

from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from tandem.core.sequence import Sequence
from tandem.engine.limits import EngineLimits
from tandem.engine.step import ScheduledSequence
from tandem.kv_cache.kv_allocator import KvAllocator
from tandem.kv_cache.prefix_cache import PrefixCache


@dataclass
class _Step:
    """A step in the making."""

    max_rows: int
    scheduled: list[ScheduledSequence] = field(default_factory=list)

    @property
    def num_rows_left(self) -> int:
        return self.max_rows - sum(scheduled.num_rows for scheduled in self.scheduled)

    def drop(self, sequence: Sequence) -> None:
        self.scheduled = [scheduled for scheduled in self.scheduled if scheduled.sequence is not sequence]


class Scheduler:
    """Continuous batching: decodes first, then the chunks of prompts that still fit.

    Sequences are served in the order of their arrival. When blocks run out, the youngest running sequence gives up all
    it holds and is computed again later.
    """

    def __init__(self, limits: EngineLimits, kv: KvAllocator) -> None:
        """Starts idle."""
        self.limits = limits
        self.num_preemptions = 0
        self._kv = kv
        self._prefixes = PrefixCache(kv, limits.prefix_cache)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []  # oldest first
        self._slots: dict[int, int] = {}  # sequence id -> slot
        self._free_slots = list(range(limits.max_sequences - 1, -1, -1))

    @property
    def num_waiting(self) -> int:
        """Sequences without a slot."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Sequences with a slot."""
        return len(self._running)

    @property
    def sequences(self) -> list[Sequence]:
        """All of them, running ones first."""
        return [*self._running, *self._waiting]

    @property
    def decoding(self) -> list[Sequence]:
        """Running sequences whose prompt is computed."""
        return [sequence for sequence in self._running if sequence.is_decoding]

    def slot(self, sequence: Sequence) -> int:
        """The slot of a running sequence."""
        return self._slots[sequence.sequence_id]

    def num_useful_drafts(self, sequence: Sequence) -> int:
        """Drafts worth verifying: the target's own token always comes on top."""
        return min(sequence.num_speculative_tokens, self.limits.max_draft_tokens, sequence.num_tokens_left - 1)

    def can_admit(self) -> bool:
        """Whether the first waiting sequence could begin now."""
        return self._shared_by_next() is not None

    def has_prompts(self) -> bool:
        """Whether the next step computes a prompt, or a part of one."""
        return any(not sequence.is_decoding for sequence in self._running) or self.can_admit()

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence at the end of the queue."""
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Takes out a sequence that has ended, wherever it is, and frees what it holds."""
        if sequence.sequence_id in self._slots:
            self._running.remove(sequence)
            self._free(sequence)
        else:
            self._waiting.remove(sequence)

    def schedule(self, drafts: Mapping[int, Tokens[int]]) -> list[ScheduledSequence]:
        """The next step; empty when there is nothing to do. Blocks for all its rows are reserved.

        Args:
            drafts: draft tokens by sequence id; those that a sequence has no use for are left out.
        """
        step = _Step(self.limits.max_step_tokens)
        decoding = self.decoding
        for num_before, sequence in enumerate(decoding):
            num_others = len(decoding) - num_before - 1  # a row for each of them comes before drafts
            num_drafts = max(0, min(self.num_useful_drafts(sequence), step.num_rows_left - num_others - 1))
            self._plan(step, sequence, 1, tuple(drafts.get(sequence.sequence_id, ()))[:num_drafts])
        for sequence in [sequence for sequence in self._running if not sequence.is_decoding]:
            self._plan_chunk(step, sequence)
        while step.num_rows_left and self._admit():
            self._plan_chunk(step, self._running[-1], is_entering=True)
        return step.scheduled

    def settle(self, sequence: Sequence) -> None:
        """Sees to the blocks of a running sequence that has moved on: full ones are shared, unseen ones go back."""
        self._prefixes.publish(sequence)
        self._kv.release_unseen(sequence.sequence_id, sequence.num_computed_tokens)

    def preempt(self, sequence: Sequence) -> None:
        """Takes everything from a running sequence and puts it first in the queue."""
        self._running.remove(sequence)
        self._free(sequence)
        sequence.restart()
        self._waiting.appendleft(sequence)
        self.num_preemptions += 1

    def check_integrity(self) -> None:
        """Raises AssertionError if a slot or a block is lost or held twice."""
        assert sorted([*self._free_slots, *self._slots.values()]) == list(range(self.limits.max_sequences))
        assert {sequence.sequence_id for sequence in self._running} == set(self._slots)
        assert self._kv.holders <= set(self._slots), "who does not run holds no block"
        self._kv.check_integrity()

    def _plan_chunk(self, step: "_Step", sequence: Sequence, is_entering: bool = False) -> None:
        if step.num_rows_left:
            self._plan(step, sequence, min(step.num_rows_left, sequence.num_uncomputed_tokens), (), is_entering)

    def _plan(
        self,
        step: "_Step",
        sequence: Sequence,
        num_rows: int,
        draft_token_ids: tuple[int, ...],
        is_entering: bool = False,
    ) -> None:
        """Adds a sequence to the step, if blocks allow."""
        if sequence.sequence_id not in self._slots:
            return  # preempted a moment ago, by an older one
        end = sequence.num_computed_tokens + num_rows
        while not self._kv.reserve(sequence.sequence_id, end + len(draft_token_ids)):
            if draft_token_ids:
                draft_token_ids = ()  # nobody is thrown out for the sake of drafts
                continue
            youngest = self._running[-1]
            step.drop(youngest)
            self.preempt(youngest)
            if youngest is sequence:
                return
        step.scheduled.append(ScheduledSequence(sequence, self.slot(sequence), num_rows, draft_token_ids, is_entering))

    def _shared_by_next(self) -> Tokens[bytes] | None:
        """Blocks that the first waiting sequence can share; None if it has to wait for a slot or for room."""
        if not self._waiting or not self._free_slots:
            return None
        growing = {sequence.sequence_id: self._num_needed(sequence) for sequence in self._running}
        shared = self._prefixes.find(self._waiting[0])
        has_room = self._kv.has_room_for(self._num_needed(self._waiting[0]), growing, shared)
        return shared if has_room else None

    def _admit(self) -> bool:
        """Gives the first waiting sequence a slot, if there is one and the cache has room for all its tokens.

        It begins with what others have computed of it.
        """
        shared = self._shared_by_next()
        if shared is None:
            return False
        sequence = self._waiting[0]
        self._kv.share(sequence.sequence_id, shared)
        sequence.num_computed_tokens = len(shared) * self._kv.block_size
        self._waiting.popleft()
        self._slots[sequence.sequence_id] = self._free_slots.pop()
        self._running.append(sequence)
        return True

    def _num_needed(self, sequence: Sequence) -> int:
        """Tokens with KV once a sequence has verified a full draft; the last token allowed never gets any."""
        return len(sequence.committed) + min(sequence.num_tokens_left - 1, self.limits.max_draft_tokens)

    def _free(self, sequence: Sequence) -> None:
        self._kv.release(sequence.sequence_id)
        self._free_slots.append(self._slots.pop(sequence.sequence_id))
