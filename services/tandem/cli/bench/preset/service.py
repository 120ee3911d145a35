"""Verifier and drafter as their commands run them, but with random weights and, in the verifier, a scheduled judge.

`python -m tandem.cli.bench.preset.service verifier OPTION ...` takes the options of `tandem verifier`, likewise for
`drafter`, and besides those of `StandIns`, which no serving command knows.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tandem.cli.main import run_command
from tandem.cli.parser import Parser, add_options, load_config
from tandem.cli.service import run_service
from tandem.cli.supervised import run_supervised
from tandem.core.config import option
from tandem.drafter.config import DrafterConfig
from tandem.telemetry.logs import LogConfig
from tandem.verifier.config import VerifierConfig

RANK_MODULE = "tandem.cli.bench.preset.rank_process"


@dataclass(frozen=True)
class StandIns:
    """What stands in for a checkpoint and for the target's own judgement."""

    acceptance_length: float = option(help="tokens a round, whatever was drafted")
    weights_device: str = option(help="where random weights are drawn", choices=["cpu", "cuda"])
    probe_file: str = option(help="file for what the process tells of itself when it gets SIGUSR1")


def main() -> int:
    """Serves until told to stop."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    name = sys.argv[1]
    config_class, serve = SERVICES[name]
    parser = Parser(prog=name)
    add_options(parser, StandIns, config_class, LogConfig)
    arguments = parser.parse_args(sys.argv[2:])

    def run() -> int:
        stand_ins = load_config(StandIns, arguments, environment={})
        config: Any = load_config(config_class, arguments, environment={})
        return serve(config, stand_ins, load_config(LogConfig, arguments, environment={}))

    return run_command(f"tandem {name}", run)


def _serve_verifier(config: VerifierConfig, stand_ins: StandIns, log_config: LogConfig) -> int:
    from tandem.cli.bench.preset.probe import answer_probes
    from tandem.models.gemma4.random_weights import RandomWeights
    from tandem.sampling.scheduled_judge import ScheduledJudge
    from tandem.verifier.service import run

    answer_probes(stand_ins.probe_file, config.device)
    weights = RandomWeights(stand_ins.weights_device)
    judge = ScheduledJudge(stand_ins.acceptance_length, config.device)
    return run_service("verifier", log_config, run(config, weights, judge, RANK_MODULE))


def _serve_drafter(config: DrafterConfig, stand_ins: StandIns, log_config: LogConfig) -> int:
    from tandem.cli.bench.preset.probe import answer_probes
    from tandem.drafter.service import run
    from tandem.models.gemma4.random_weights import RandomWeights

    answer_probes(stand_ins.probe_file, stand_ins.weights_device)
    return run_service("drafter", log_config, run(config, RandomWeights(stand_ins.weights_device)))


SERVICES: dict[str, tuple[type, Callable[..., int]]] = {
    "verifier": (VerifierConfig, _serve_verifier),
    "drafter": (DrafterConfig, _serve_drafter),
}

if __name__ == "__main__":
    run_supervised(main)
