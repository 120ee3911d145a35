"""As many drafts as pay, from whichever drafter drafts better.

Acceptance is learnt by sequence, drafter and run of right drafts, the time of a round by its sizes; both fade, so that
the policy follows a text that becomes harder, a machine that becomes busy and a drafter that recovers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tandem.engine.acceptance import Acceptance, Run, gains
from tandem.engine.draft_allocation import Allocation, Offer, allocate
from tandem.engine.draft_policy import Candidate, DraftPlan, Planned, RoundReport
from tandem.engine.probing import LEAST_PRICE, Firsts, Purses, Turns, expected_tokens, lost_seconds
from tandem.engine.round_cost import Durations

DRAFTER_MEMORY = 1000.0  # rounds
SEQUENCE_MEMORY = 60.0
GUESS_WEIGHT = 4.0  # drafts, of what is expected after a run that was never seen
DRAFTER_WEIGHT = 10.0  # drafts, of a drafter's average against a sequence's own rounds
FIRST_STEP = (10e-3, 0.0, 0.0)  # seconds, of any step: rows cost nothing until they were measured
FIRST_DRAFTING = (0.0, 1e-3, 0.0)  # seconds, of each draft
EQUAL_GAIN = 1.01  # times the tokens a second, from which on the number of drafts is changed: a change costs something
UNLIKE_GAIN = 1.05  # times the tokens a second, from which on sequences are given unlike numbers of drafts
LOOKS_EVERY = 2  # plans, at whether they should be
NUM_ALIKE = 4  # rounds that are planned alike: thinking and changing take time, and what was tried once says little
NUM_TRIALS = 2  # rounds in which every drafter drafts for a new sequence, whoever is believed to be better


@dataclass
class _Drafter:
    """What is known of a drafter."""

    acceptance: Acceptance = field(default_factory=lambda: Acceptance(DRAFTER_MEMORY))
    num_rounds: int = 0  # with its drafts; what was given up is not forgotten
    settled: int = 0  # drafts for each sequence alike, as they were given last
    durations: Durations = field(default_factory=lambda: Durations(FIRST_DRAFTING))  # by drafts of one, and of all

    def seconds(self, num_sequences: int, num_drafts: int) -> float:
        return self.durations.seconds(num_drafts, num_drafts * num_sequences)


@dataclass
class _History:
    """What one drafter did for one sequence."""

    run: Run = field(default_factory=Run)
    acceptance: Acceptance = field(default_factory=lambda: Acceptance(SEQUENCE_MEMORY))
    num_rounds: int = 0


class AdaptiveDrafts:
    """A `DraftPolicy` that makes expected tokens a second large."""

    def __init__(self, num_drafters: int, max_rows: int) -> None:
        """Knows nothing: drafts are taken to be good, and verifying them to cost little.

        Args:
            num_drafters: that there are, attached or not.
            max_rows: of a step.
        """
        self._max_rows = max_rows
        self._drafters = [_Drafter() for _ in range(num_drafters)]
        self._steps = Durations(FIRST_STEP)  # by sequences and rows
        self._sequences: dict[int, list[_History]] = {}  # by sequence id; by drafter
        self._round = self._num_plans = 0
        self._planned: Planned | None = None
        self._num_left = 0  # rounds that it is for
        self._are_unlike = False  # numbers of drafts, as of late
        self._single_probes, self._common_probes, self._firsts = Turns(), Purses(), Firsts()

    def plan(self, candidates: Sequence[Candidate], max_drafts: Sequence[int]) -> list[DraftPlan]:
        """What pays, or a probe in place of it, and trials of new sequences; the same for some rounds, if it fits."""
        self._round += 1
        if self._planned and self._num_left and self._planned.fits(candidates, max_drafts):
            self._num_left -= 1
            return self._planned.plans
        plans = self._think(candidates, max_drafts)
        self._planned = Planned([one.sequence_id for one in candidates], list(max_drafts), plans)
        self._num_left = 0 if any(plan.num_drafts > plan.num_verified for plan in plans) else NUM_ALIKE - 1
        return plans

    def _think(self, candidates: Sequence[Candidate], max_drafts: Sequence[int]) -> list[DraftPlan]:
        self._num_plans += 1
        self._sequences = {
            one.sequence_id: self._sequences.get(one.sequence_id) or [_History() for _ in self._drafters]
            for one in candidates
        }
        present = [drafter for drafter, most in enumerate(max_drafts) if most > 0]
        if not present or not any(one.max_drafts for one in candidates):
            return []
        offers = {drafter: self._offers(candidates, drafter, max_drafts[drafter]) for drafter in present}
        equals = {drafter: self._equals(of_drafter) for drafter, of_drafter in offers.items()}
        chosen, best = self._choose(offers, equals)
        chosen, counts = self._probe(offers, equals, chosen, best)
        plans = {(plan.sequence_id, plan.drafter): plan for plan in self._trials(candidates, offers)}
        for candidate, offer, count in zip(candidates, chosen, counts, strict=True):
            if count:
                trial = plans.get((candidate.sequence_id, offer.drafter))
                num_drafts = trial.num_drafts if trial else count
                plans[candidate.sequence_id, offer.drafter] = DraftPlan(
                    candidate.sequence_id, offer.drafter, num_drafts, count
                )
        return list(plans.values())

    def learn(self, report: RoundReport) -> None:
        """Takes in what came of the round."""
        for place in {judged.drafter for judged in report.judged}:
            self._drafters[place].num_rounds += 1
        for judged in report.judged:
            if judged.sequence_id in self._sequences:
                drafter, history = self._drafters[judged.drafter], self._sequences[judged.sequence_id][judged.drafter]
                history.num_rounds += 1
                run = history.run.start(judged)
                history.acceptance.record(run, judged, self._round)
                drafter.acceptance.record(run, judged, drafter.num_rounds)
        for drafting in report.drafting:
            if drafting.is_answer:
                durations = self._drafters[drafting.drafter].durations
                durations.record(drafting.num_drafts, drafting.num_drafts * drafting.num_sequences, drafting.seconds)
            else:
                self._single_probes.charge(drafting.seconds / NUM_ALIKE)
                self._common_probes.charge(drafting.seconds / NUM_ALIKE)
                self._num_left = 0
        if step := report.step:
            self._steps.record(step.num_sequences, step.num_rows, step.seconds, is_guess=step.is_rehearsal)

    def _offers(self, candidates: Sequence[Candidate], drafter: int, most: int) -> list[Offer]:
        known = self._drafters[drafter]
        average = known.acceptance.chances(None, GUESS_WEIGHT, known.num_rounds)
        found = []
        for one in candidates:
            history = self._sequences[one.sequence_id][drafter]
            chances = history.acceptance.chances(average, DRAFTER_WEIGHT, self._round)
            found.append(Offer(drafter, gains(chances, history.run.length, min(one.max_drafts, most))))
        return found

    def _choose(
        self, offers: dict[int, list[Offer]], equals: dict[int, list[Allocation]]
    ) -> tuple[list[Offer], Allocation]:
        """One drafter for all, or for each sequence the one that is right more often."""
        ways = [
            (of_drafter, self._allocate(of_drafter, self._settle(drafter, equals[drafter])))
            for drafter, of_drafter in offers.items()
        ]
        if len(ways) > 1 and len(ways[0][0]) > 1:
            mixed = [
                max(several, key=lambda offer: expected_tokens(offer, len(offer.gains)))
                for several in zip(*offers.values(), strict=True)
            ]
            equal = max(self._equals(mixed), key=lambda found: found.tokens_per_second)
            ways.append((mixed, self._allocate(mixed, equal)))
        return max(ways, key=lambda found: found[1].tokens_per_second)

    def _settle(self, drafter: int, equals: list[Allocation]) -> Allocation:
        """The best of `equals`, or the one as of late, which costs no change."""
        best = max(range(len(equals)), key=lambda count: equals[count].tokens_per_second)
        known = self._drafters[drafter]
        if known.settled >= len(equals):  # a text near its end has a use for fewer, of which the next one knows nothing
            return equals[best]
        if equals[best].tokens_per_second > EQUAL_GAIN * equals[known.settled].tokens_per_second:
            known.settled = best
        return equals[known.settled]

    def _allocate(self, offers: list[Offer], equal: Allocation) -> Allocation:
        """As many drafts for each sequence, unless unlike numbers promise clearly more.

        Attention may pad sequences with unlike numbers of rows to the longest, which their sum does not tell. Texts
        become unlike slowly, and to look at them takes as long as all else here: it is done in some plans only.
        """
        if len(offers) == 1 or not (self._are_unlike or self._num_plans % LOOKS_EVERY == 0):
            return equal
        unlike = allocate(
            offers,
            self._max_rows,
            lambda num_rows: self._steps.seconds(len(offers), num_rows),
            lambda drafter, count, num_drafts: self._drafters[drafter].seconds(count, num_drafts),
        )
        self._are_unlike = unlike.tokens_per_second > UNLIKE_GAIN * equal.tokens_per_second
        return unlike if self._are_unlike else equal

    def _equals(self, offers: Sequence[Offer]) -> list[Allocation]:
        """As many drafts for each sequence as it has a use for, up to 0, 1, 2 ... while the step has rows."""
        found, counts, tokens = [], [0] * len(offers), float(len(offers))
        most = [len(offer.gains) for offer in offers]
        for count in range(max(most) + 1):
            if count:
                counts = [min(count, of_one) for of_one in most]
                tokens += sum(offer.gains[count - 1] for offer in offers if len(offer.gains) >= count)
                if len(offers) + sum(counts) > self._max_rows:
                    break
            found.append(Allocation(counts, tokens, self._seconds(offers, counts)))
        return found

    def _trials(self, candidates: Sequence[Candidate], offers: dict[int, list[Offer]]) -> list[DraftPlan]:
        """Drafts that are not verified: the target's own tokens tell how good they would have been."""
        if len(offers) == 1:
            return []
        return [
            DraftPlan(one.sequence_id, drafter, len(offer.gains), 0)
            for drafter, of_drafter in offers.items()
            for one, offer in zip(candidates, of_drafter, strict=True)
            if offer.gains and self._sequences[one.sequence_id][drafter].num_rounds < NUM_TRIALS
        ]

    def _probe(
        self,
        offers: dict[int, list[Offer]],
        equals: dict[int, list[Allocation]],
        chosen: list[Offer],
        best: Allocation,
    ) -> tuple[list[Offer], list[int]]:
        """In place of what pays: all drafts of one sequence, or another number for every sequence."""
        drafters, num_sequences = list(offers), len(chosen)
        self._single_probes.save(best.seconds)
        self._common_probes.save(best.seconds)
        # 1) One sequence, by each drafter that does not draft for it: what its drafts are worth now.
        if num_sequences > 1 and self._single_probes.is_due:
            place, number = divmod(self._single_probes.peek(len(drafters) * num_sequences), num_sequences)
            probed, counts = list(chosen), list(best.num_drafts)
            probed[number] = offers[drafters[place]][number]
            counts[number] = len(probed[number].gains)
            if best.num_drafts[number] and chosen[number].drafter == drafters[place]:
                self._single_probes.skip()  # any number of drafts tells it
            else:
                tokens = len(probed) + sum(map(expected_tokens, probed, counts))
                found = Allocation(counts, tokens, self._seconds(probed, counts))
                if self._single_probes.take(lost_seconds(best, found)):
                    return probed, counts
        # 2) All of them, with a number of drafts that so many sequences never had.
        every = {(drafter, count): found for drafter, ones in equals.items() for count, found in enumerate(ones)}
        first = self._firsts.take(num_sequences, every, best)
        if first:
            return offers[first[0]], every[first].num_drafts
        # 3) All of them, with another number of drafts: what such a round takes now.
        others = {
            (drafter, count): found
            for (drafter, count), found in every.items()
            if not _is_same(offers[drafter], found.num_drafts, chosen, best)
        }
        prices = {
            choice: max(lost_seconds(best, found), LEAST_PRICE * best.seconds) for choice, found in others.items()
        }
        taken = self._common_probes.take(prices)
        return (offers[taken[0]], others[taken].num_drafts) if taken else (chosen, best.num_drafts)

    def _seconds(self, offers: Sequence[Offer], counts: Sequence[int]) -> float:
        """What a round takes."""
        drafting = 0.0
        for drafter in {offer.drafter for offer in offers}:
            asked = [count for offer, count in zip(offers, counts, strict=True) if count and offer.drafter == drafter]
            drafting += self._drafters[drafter].seconds(len(asked), max(asked)) if asked else 0.0
        return drafting + self._steps.seconds(len(offers), len(offers) + sum(counts))


def _is_same(probed: Sequence[Offer], counts: Sequence[int], chosen: Sequence[Offer], best: Allocation) -> bool:
    """Whether drafts are what is chosen anyway."""
    return counts == best.num_drafts and all(
        one.drafter == other.drafter for one, other, count in zip(probed, chosen, counts, strict=True) if count
    )
