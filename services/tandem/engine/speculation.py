"""Between round loop and drafters: asks for drafts, collects them, and tells the policy what they were worth."""

import time
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, replace

from tandem.core.sequence import Sequence
from tandem.engine.draft_policy import (
    Candidate,
    Drafting,
    DraftPlan,
    DraftPolicy,
    Judged,
    Planned,
    RoundReport,
    StepTaken,
)
from tandem.engine.draft_source import Drafts, DraftSource, Fallback, Wanted
from tandem.engine.scheduler import Scheduler
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics


@dataclass(frozen=True)
class _Asked:
    """What one drafter was asked for."""

    drafter: int
    plans: list[DraftPlan]
    sequences: list[Sequence]
    lengths: list[int]  # committed tokens of each when asked
    asked_at: float

    @property
    def num_drafts(self) -> int:
        """What any sequence may be given."""
        return max(plan.num_drafts for plan in self.plans)


@dataclass(frozen=True)
class _Offered:
    """Drafts that came; none where nothing usable did."""

    plan: DraftPlan
    start: int  # committed tokens of the sequence when asked
    token_ids: Tokens[int]

    def compare(self, written: Tokens[int]) -> Judged:
        """The target's own tokens say how good drafts are, whether it verified them or not."""
        num_right = 0
        for drafted, token_id in zip(self.token_ids, written, strict=False):
            if drafted != token_id:
                break
            num_right += 1
        plan = self.plan
        return Judged(
            plan.sequence_id, plan.drafter, self.start, plan.num_drafts, min(num_right, plan.num_drafts), len(written)
        )


class Speculation:
    """The drafters of an engine, and the policy that chooses among them."""

    def __init__(
        self,
        drafters: Tokens[DraftSource],
        policy: DraftPolicy,
        scheduler: Scheduler,
        vocabulary_size: int,
        metrics: Metrics,
    ) -> None:
        """Takes the parts.

        Args:
            drafters: none: nobody drafts.
            policy: made for so many drafters.
            scheduler: knows who decodes.
            vocabulary_size: token ids beyond it are refused.
            metrics: counts rounds whose drafts did not come.
        """
        self.policy = policy
        self._drafters = drafters
        self._scheduler = scheduler
        self._vocabulary_size = vocabulary_size
        self._metrics = metrics
        self._asked: list[_Asked] = []
        self._offered: list[_Offered] = []
        self._drafting: list[Drafting] = []
        self._planned: Planned | None = None  # for the round after next, made while drafters were at work

    def ask(self) -> None:
        """Asks for the next round's drafts. Who refuses is replaced by another drafter, if there is one."""
        decoding = {sequence.sequence_id: sequence for sequence in self._scheduler.decoding}
        candidates, max_drafts, early = self._candidates(decoding.values()), self._max_drafts(), self._planned
        if early and early.fits(candidates, max_drafts):
            plans = early.plans
        else:
            plans = self.policy.plan(candidates, max_drafts)
        planned: dict[int, dict[int, DraftPlan]] = {}  # by drafter and sequence
        for plan in plans:
            planned.setdefault(plan.drafter, {})[plan.sequence_id] = plan
        refused: list[DraftPlan] = []
        for place in sorted(range(len(self._drafters)), key=lambda place: place not in planned):
            group = planned.get(place, {}) | {plan.sequence_id: replace(plan, drafter=place) for plan in refused}
            if group and self._begin(place, list(group.values()), decoding):
                refused = []
            else:
                refused = [plan for plan in group.values() if plan.num_verified]

    def collect(self) -> Mapping[int, Tokens[int]]:
        """Draft tokens to verify by sequence id: what was asked for, came, and is fit to be verified."""
        self._offered, self._drafting = [], []
        found: dict[int, Tokens[int]] = {}
        while self._asked:
            one = self._asked.pop(0)
            drafts = self._drafters[one.drafter].collect()
            seconds = time.perf_counter() - one.asked_at  # the policy's thinking in between comes at no cost of time
            if not self._drafting:  # drafters after the first one had begun while it was waited for
                self._drafting.append(
                    Drafting(one.drafter, len(one.plans), one.num_drafts, seconds, drafts.fallback is None)
                )
            for plan, start, token_ids in zip(one.plans, one.lengths, self._check(one, drafts), strict=True):
                self._offered.append(_Offered(plan, start, token_ids))
                if plan.num_verified and token_ids:
                    found[plan.sequence_id] = token_ids[: plan.num_verified]
        return found

    def learn(self, written: Mapping[int, Tokens[int]], step: StepTaken | None) -> None:
        """Tells the policy about the round, and has it plan while drafters that were asked are at work.

        Thinking takes a per cent of a short round. Whom nothing is asked of gives no time for it: `ask` plans then.

        Args:
            written: the target's tokens of each sequence that was verified, by its id.
            step: the time of the step, unless prompts were computed too.
        """
        judged = [
            offered.compare(written[offered.plan.sequence_id])
            for offered in self._offered
            if offered.plan.sequence_id in written
        ]
        self.policy.learn(RoundReport(judged, self._drafting, step))
        self._planned = None
        if self._asked:
            candidates, max_drafts = self._candidates(self._scheduler.decoding), self._max_drafts()
            plans = self.policy.plan(candidates, max_drafts)
            self._planned = Planned([one.sequence_id for one in candidates], max_drafts, plans)

    def forget(self) -> None:
        """Drafts that are under way belong to a round that failed."""
        self._planned = None
        while self._asked:
            self._drafters[self._asked.pop().drafter].collect()

    def close(self) -> None:
        """Lets go of all drafters."""
        for drafter in self._drafters:
            drafter.close()

    def _candidates(self, decoding: Iterable[Sequence]) -> list[Candidate]:
        num_useful = self._scheduler.num_useful_drafts
        return [Candidate(one.sequence_id, max(0, num_useful(one))) for one in decoding]

    def _max_drafts(self) -> list[int]:
        return [drafter.info.num_speculative_tokens if drafter.info else 0 for drafter in self._drafters]

    def _begin(self, place: int, plans: list[DraftPlan], decoding: Mapping[int, Sequence]) -> bool:
        sequences = [decoding[plan.sequence_id] for plan in plans]
        asked_at = time.perf_counter()
        wanted = [
            Wanted(self._scheduler.slot(sequence), sequence.committed, plan.num_drafts, sequence.sequence_id)
            for plan, sequence in zip(plans, sequences, strict=True)
        ]
        has_begun = self._drafters[place].begin(wanted)
        if has_begun:
            self._asked.append(_Asked(place, plans, sequences, [len(one.committed) for one in sequences], asked_at))
        return has_begun

    def _check(self, asked: _Asked, drafts: Drafts) -> list[Tokens[int]]:
        """The tokens of each sequence, none where they are unfit."""
        fallback = drafts.fallback
        usable: list[Tokens[int]] = [()] * len(asked.plans)
        if len(drafts.token_ids) != len(asked.plans):
            fallback = fallback or Fallback.INVALID
        else:
            for number, token_ids in enumerate(drafts.token_ids):
                if len(token_ids) > asked.num_drafts or not self._are_known(token_ids):
                    fallback = fallback or Fallback.INVALID
                elif len(asked.sequences[number].committed) == asked.lengths[number]:
                    usable[number] = asked.sequences[number].possible_drafts(token_ids)
        if fallback:
            self._metrics.count(names.SPEC_FALLBACKS, reason=fallback.value)
        return usable

    def _are_known(self, token_ids: Tokens[int]) -> bool:
        return all(0 <= token_id < self._vocabulary_size for token_id in token_ids)
