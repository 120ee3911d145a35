"""A verifier that serves fixed and adaptive K side by side.

`python -m tandem.cli.bench.any_k verifier OPTION ...` takes the options of `tandem verifier`. Two processes that do the
same differ by some per cent, and by more from moment to moment; in one process, nothing but K differs.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from tandem.cli.main import run_command
from tandem.cli.parser import Parser, add_options, load_config
from tandem.cli.service import run_service
from tandem.cli.supervised import run_supervised
from tandem.engine.adaptive_drafts import AdaptiveDrafts
from tandem.engine.draft_policy import Candidate, DraftPlan, DraftPolicy, FixedDrafts, RoundReport
from tandem.telemetry.logs import LogConfig
from tandem.verifier.config import VerifierConfig

MODULE = "tandem.cli.bench.any_k"
MAX_DRAFTS = 6  # of either policy
ADAPTIVE = MAX_DRAFTS + 1  # drafts that a request asks for to have as many as pay; any fewer are always made


class AnyK:
    """Two policies, each for the requests that ask for it; those of a round ask for the same."""

    def __init__(self, num_drafters: int, max_rows: int) -> None:
        """Makes both. See `AdaptiveDrafts`."""
        self._fixed, self._adaptive = FixedDrafts(), AdaptiveDrafts(num_drafters, max_rows)
        self._policy: DraftPolicy = self._adaptive
        self._asked: dict[int, int] = {}  # by sequence id: drafts wanted when it was new; near its end they are fewer

    def plan(self, candidates: Sequence[Candidate], max_drafts: Sequence[int]) -> list[DraftPlan]:
        """What the policy of these requests plans."""
        self._asked = {one.sequence_id: self._asked.get(one.sequence_id, one.max_drafts) for one in candidates}
        if self._asked:  # when nobody is left, the last round's report has yet to come
            self._policy = self._adaptive if ADAPTIVE in self._asked.values() else self._fixed
        return self._policy.plan(
            [replace(one, max_drafts=min(one.max_drafts, MAX_DRAFTS)) for one in candidates], max_drafts
        )

    def learn(self, report: RoundReport) -> None:
        """Tells only the policy that planned the round: adaptive K has to find out everything for itself."""
        self._policy.learn(report)


def main() -> int:
    """Serves until told to stop."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    parser = Parser(prog="verifier")
    parser.add_argument("service", choices=["verifier"])
    add_options(parser, VerifierConfig, LogConfig)
    arguments = parser.parse_args(sys.argv[1:])
    return run_command("tandem verifier", lambda: _serve(arguments))


def _serve(arguments: argparse.Namespace) -> int:
    from tandem.verifier.service import run

    config = load_config(VerifierConfig, arguments, environment={})
    log_config = load_config(LogConfig, arguments, environment={})
    return run_service("verifier", log_config, run(config, adaptive=AnyK))


if __name__ == "__main__":
    run_supervised(main)
