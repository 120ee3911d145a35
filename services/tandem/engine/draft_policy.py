"""Who drafts for which sequence in the next round, and how much of it is verified.

A policy is told what came of each round and plans the next one. Text depends on neither, so a policy can only be slow,
never wrong. Plain Python: no tensor, no clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Candidate:
    """A sequence that will have a row in the next round, and maybe drafts."""

    sequence_id: int
    max_drafts: int  # of use at most; 0: none


@dataclass(frozen=True)
class DraftPlan:
    """What one drafter is asked for one sequence."""

    sequence_id: int
    drafter: int  # its place among the drafters
    num_drafts: int  # wanted, at least 1
    num_verified: int  # of them, by the target; the others are still compared with what it writes

    def __post_init__(self) -> None:
        """A contradiction is a defect of ours."""
        assert 0 <= self.num_verified <= self.num_drafts > 0


@dataclass(frozen=True)
class Planned:
    """Plans for a later round than the one they were made for."""

    sequence_ids: list[int]  # of all that decoded then
    max_drafts: list[int]  # by drafter
    plans: list[DraftPlan]

    def fits(self, candidates: Sequence[Candidate], max_drafts: Sequence[int]) -> bool:
        """Whether nobody came, went, or has less use for drafts by now."""
        if max_drafts != self.max_drafts or [one.sequence_id for one in candidates] != self.sequence_ids:
            return False
        useful = {one.sequence_id: one.max_drafts for one in candidates}
        return all(plan.num_drafts <= useful[plan.sequence_id] for plan in self.plans)


@dataclass(frozen=True)
class Judged:
    """How a drafter's tokens compare with those that the target wrote."""

    sequence_id: int
    drafter: int
    start: int  # tokens of the sequence before those
    num_drafts: int  # wanted; those that did not come were wrong
    num_right: int  # from the first on
    num_written: int  # tokens, by the target: all that is known

    @property
    def has_failed(self) -> bool:
        """Whether the draft after the right ones is known to be wrong."""
        return self.num_right < min(self.num_drafts, self.num_written)


@dataclass(frozen=True)
class Drafting:
    """The time that one drafter took from the round."""

    drafter: int
    num_sequences: int
    num_drafts: int  # most of any sequence
    seconds: float
    is_answer: bool  # False: it was waited for in vain


@dataclass(frozen=True)
class StepTaken:
    """The time of a step in which every sequence was decoding."""

    num_sequences: int
    num_rows: int
    seconds: float
    is_rehearsal: bool = False  # of a calibration: short texts, and no drafter beside it


@dataclass(frozen=True)
class RoundReport:
    """What came of a round."""

    judged: Sequence[Judged] = ()
    drafting: Sequence[Drafting] = ()
    step: StepTaken | None = None  # None: prompts were computed, too


class DraftPolicy(Protocol):
    """Plans drafts. Called by the engine's thread only."""

    def plan(self, candidates: Sequence[Candidate], max_drafts: Sequence[int]) -> list[DraftPlan]:
        """The drafts to ask for now; at most one plan with verified ones a sequence, and one plan a drafter.

        Args:
            candidates: all that decode.
            max_drafts: tokens that each drafter makes a round at most; 0 while it is not there.
        """
        ...

    def learn(self, report: RoundReport) -> None:
        """Takes in what came of the round."""
        ...


class FixedDrafts:
    """As many drafts as a sequence asks for, from the first drafter that is there."""

    def plan(self, candidates: Sequence[Candidate], max_drafts: Sequence[int]) -> list[DraftPlan]:
        """All that is of use."""
        drafter = next((place for place, most in enumerate(max_drafts) if most > 0), None)
        if drafter is None:
            return []
        return [
            DraftPlan(candidate.sequence_id, drafter, candidate.max_drafts, candidate.max_drafts)
            for candidate in candidates
            if candidate.max_drafts > 0
        ]

    def learn(self, report: RoundReport) -> None:
        """Nothing changes its mind."""
