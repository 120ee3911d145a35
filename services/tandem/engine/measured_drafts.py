"""A policy whose rounds are measured: every report of one passes through here, whoever ran the round."""

from collections.abc import Sequence

from tandem.engine.draft_policy import Candidate, DraftPlan, DraftPolicy, RoundReport
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics


class MeasuredDrafts:
    """Plans as another policy does."""

    def __init__(self, policy: DraftPolicy, metrics: Metrics) -> None:
        """Asks `policy`, and tells `metrics` how long steps took."""
        self._policy = policy
        self._metrics = metrics

    def plan(self, candidates: Sequence[Candidate], max_drafts: Sequence[int]) -> list[DraftPlan]:
        """What the other one plans."""
        return self._policy.plan(candidates, max_drafts)

    def learn(self, report: RoundReport) -> None:
        """Measures, and passes on."""
        if report.step:
            self._metrics.observe(names.VERIFY_SECONDS, report.step.seconds)
        self._policy.learn(report)
