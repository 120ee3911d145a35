"""Measures steps of many sizes before the engine serves: the policy then knows what drafts cost."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace

from tandem.core.sampling_params import SamplingParams, StoppingParams
from tandem.core.sequence import FinishReason
from tandem.core.sequence import Sequence as TokenSequence
from tandem.engine.draft_policy import Candidate, DraftPlan, DraftPolicy, RoundReport
from tandem.engine.draft_source import DrafterInfo, Drafts, Wanted
from tandem.engine.round_loop import RoundLoop
from tandem.engine.speculation import Speculation
from tandem.telemetry.metrics import Metrics

BATCHES = (1, 4, 16)
NUM_TURNS = 4  # of which the first, where everything is made that is made at first use, is not counted
NUM_PROMPT_TOKENS = 8
MAX_SECONDS = 5.0
CACHE_SALT = "calibration"


class _MadeUpDrafts:
    """A `DraftSource` whose drafts are only there to be verified."""

    def __init__(self, num_drafts: int) -> None:
        self.info = DrafterInfo("calibration", num_drafts, "")
        self._wanted: Sequence[Wanted] = ()

    def begin(self, wanted: Sequence[Wanted]) -> bool:
        self._wanted = wanted
        return True

    def collect(self) -> Drafts:
        return Drafts([(0,) * one.num_tokens for one in self._wanted])

    def close(self) -> None:
        pass


class _Turns:
    """A `DraftPolicy` that plans one number of drafts after the other, and passes on what steps took."""

    def __init__(self, counts: Sequence[int], told: DraftPolicy) -> None:
        self.is_counting = False
        self._counts = itertools.cycle(counts)
        self._told = told

    def plan(self, candidates: Sequence[Candidate], max_drafts: Sequence[int]) -> list[DraftPlan]:
        count = next(self._counts)
        return [DraftPlan(one.sequence_id, 0, count, count) for one in candidates if count]

    def learn(self, report: RoundReport) -> None:
        if self.is_counting and report.step:
            self._told.learn(RoundReport(step=replace(report.step, is_rehearsal=True)))


def calibrate(rounds: RoundLoop) -> None:
    """Tells the policy of `rounds`, which is idle, what steps with different numbers of sequences and drafts take."""
    scheduler, limits, started_at = rounds.scheduler, rounds.scheduler.limits, time.perf_counter()
    most = limits.max_draft_tokens
    counts = sorted({0, 1, most // 2, most})
    turns = _Turns(counts, rounds.speculation.policy)
    drafts = Speculation([_MadeUpDrafts(most)], turns, scheduler, rounds.runner.vocabulary_size, Metrics())
    loop = RoundLoop(scheduler, rounds.runner, rounds.kv, drafts, Metrics())
    num_rounds = NUM_TURNS * len(counts)
    for batch in BATCHES:
        max_tokens = 2 * num_rounds * (most + 1)
        length = NUM_PROMPT_TOKENS + max_tokens
        is_possible = batch <= limits.max_sequences and length <= limits.max_context
        if not is_possible or batch * length > limits.kv_tokens or time.perf_counter() - started_at > MAX_SECONDS:
            return
        for number in range(batch):
            scheduler.add(_sequence(-1 - number, max_tokens, most))
        turns.is_counting = False
        while len(scheduler.decoding) < len(scheduler.sequences):
            loop.run_round([])
        for number in range(num_rounds):
            turns.is_counting = number >= len(counts)
            loop.run_round([])
        drafts.forget()
        for sequence in scheduler.sequences:
            loop.end(sequence, FinishReason.CANCELLED)


def _sequence(sequence_id: int, max_tokens: int, num_drafts: int) -> TokenSequence:
    return TokenSequence(
        sequence_id,
        (0,) * NUM_PROMPT_TOKENS,
        SamplingParams(temperature=0.0),
        StoppingParams(max_tokens),
        num_speculative_tokens=num_drafts,
        cache_salt=CACHE_SALT,
    )
