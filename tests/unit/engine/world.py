"""A world of made-up acceptance and costs, for policies that plan drafts."""

import random
from dataclasses import dataclass

from tandem.engine.draft_policy import Candidate, Drafting, Judged, RoundReport, StepTaken


@dataclass
class Outcome:
    """What rounds gave."""

    tokens: int = 0
    seconds: float = 0.0
    num_rounds: int = 0
    num_verified: int = 0  # drafts
    verified_by: dict = None  # (sequence, drafter) -> rounds
    asked_of: dict = None  # (sequence, drafter) -> rounds

    @property
    def rate(self):
        return self.tokens / self.seconds

    @property
    def mean_drafts(self):
        """Verified drafts a round."""
        return self.num_verified / self.num_rounds


@dataclass
class World:
    """Costs in milliseconds by what the round does; the chance that a draft is right by drafter and sequence."""

    step: callable  # (sequences, rows)
    drafting: callable  # (drafter, sequences, drafts)
    chance: callable  # (drafter, sequence)
    num_sequences: int = 1
    k: int = 4
    num_drafters: int = 1
    noise: float = 0.05
    seed: int = 0

    def __post_init__(self):
        self.rng = random.Random(self.seed)
        self.lengths = dict.fromkeys(range(self.num_sequences), 1)  # tokens by sequence

    def run(self, policy, num_rounds):
        outcome = Outcome(verified_by={}, asked_of={})
        for _ in range(num_rounds):
            self._round(policy, outcome)
        return outcome

    def _round(self, policy, outcome):
        ids = range(self.num_sequences)
        plans = policy.plan([Candidate(i, self.k) for i in ids], [self.k] * self.num_drafters)
        assert len({(plan.sequence_id, plan.drafter) for plan in plans}) == len(plans)
        verified = [plan for plan in plans if plan.num_verified]
        assert len({plan.sequence_id for plan in verified}) == len(verified)
        drafting = []
        for drafter in sorted({plan.drafter for plan in plans}):
            asked = [plan for plan in plans if plan.drafter == drafter]
            most = max(plan.num_drafts for plan in asked)
            seconds = self._noisy(self.drafting(drafter, len(asked), most))
            drafting.append(Drafting(drafter, len(asked), most, seconds, True))
        num_rows = self.num_sequences + sum(plan.num_verified for plan in plans)
        step = StepTaken(self.num_sequences, num_rows, self._noisy(self.step(self.num_sequences, num_rows)))
        right = {(plan.sequence_id, plan.drafter): self._right(plan) for plan in plans}
        written = dict.fromkeys(ids, 1)
        for plan in verified:
            written[plan.sequence_id] += min(right[plan.sequence_id, plan.drafter], plan.num_verified)
        judged = []
        for plan in plans:
            key, known = (plan.sequence_id, plan.drafter), written[plan.sequence_id]
            start = self.lengths[plan.sequence_id]
            judged.append(Judged(*key, start, plan.num_drafts, min(right[key], known), known))
            outcome.asked_of[key] = outcome.asked_of.get(key, 0) + 1
            outcome.verified_by[key] = outcome.verified_by.get(key, 0) + (plan.num_verified > 0)
        for sequence_id, count in written.items():
            self.lengths[sequence_id] += count
        policy.learn(RoundReport(judged, drafting[:1], step))
        outcome.tokens += sum(written.values())
        outcome.seconds += step.seconds + sum(one.seconds for one in drafting)
        outcome.num_rounds += 1
        outcome.num_verified += sum(plan.num_verified for plan in plans)

    def _right(self, plan):
        num_right = 0
        while num_right < plan.num_drafts and self.rng.random() < self.chance(plan.drafter, plan.sequence_id):
            num_right += 1
        return num_right

    def _noisy(self, milliseconds):
        return milliseconds / 1000 * self.rng.lognormvariate(0, self.noise)
