"""`python -m tandem.verifier.rank_process RANK MEETING_POINT`: one rank of the target, but not the leader.

Its settings are the verifier's, in the environment. See `rank_processes`, which starts it.
"""

import array
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from tandem.core.config import load
from tandem.core.errors import ConfigError
from tandem.engine.graphs import Graphs
from tandem.models.gemma4.following import Follower
from tandem.models.gemma4.weight_source import WeightSource
from tandem.models.gemma4.weights import CHECKPOINT
from tandem.models.ranks import ProcessRanks
from tandem.telemetry import logs
from tandem.telemetry.logs import LogConfig
from tandem.verifier.config import VerifierConfig
from tandem.verifier.model import load_share
from tandem.verifier.rank_processes import HAS_LOADED, NUMBER

logger = logging.getLogger(__name__)

MAX_NUMBERS = 1 << 26  # of a step: block tables of 2^26 blocks


def run(weights_of: Callable[[VerifierConfig], WeightSource] = lambda config: CHECKPOINT) -> NoReturn:
    """Follows the leader until its pipe closes; then the process ends at once, whatever the device still waits for.

    Args:
        weights_of: where weights come from.
    """
    # Who stops the verifier, from a terminal for one, may stop all its processes; it then still has requests to finish.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Answers have stdout for themselves, whatever a library prints.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    rank, meeting_point = int(sys.argv[1]), Path(sys.argv[2])
    config = load(VerifierConfig, os.environ, {})
    logs.configure(f"rank {rank}", load(LogConfig, os.environ, {}))
    ranks = ProcessRanks(rank, config.tensor_parallel)
    if config.device == "cuda":
        torch.cuda.set_device(rank)
    try:
        target, storage, limits = load_share(config, ranks, weights_of(config))
    except ConfigError as error:
        print(" ".join(str(error).split()), file=answers, flush=True)
        os._exit(1)
    print(HAS_LOADED, file=answers, flush=True)
    try:
        ranks.join(meeting_point, target.embed_tokens.device)
        spare_blocks = limits.spare_blocks(target.config)
        Follower(target, storage, ranks, spare_blocks, Graphs(target.embed_tokens.device)).follow(_steps())
    except Exception:  # another rank may be gone; the verifier says what becomes of it
        logger.exception("this rank cannot go on")
        os._exit(1)
    os._exit(0)


def _steps() -> Iterator[Sequence[int]]:
    """What the leader tells of, as long as it lives."""
    while header := _read(1):
        (count,) = header
        assert 0 < count <= MAX_NUMBERS
        numbers = _read(count)
        if not numbers:
            return
        yield numbers


def _read(count: int) -> "array.array[int]":
    """So many numbers from stdin; none where it ends before."""
    numbers = array.array(NUMBER)
    data = sys.stdin.buffer.read(count * numbers.itemsize)
    if len(data) == count * numbers.itemsize:
        numbers.frombytes(data)
    return numbers


if __name__ == "__main__":
    run()
