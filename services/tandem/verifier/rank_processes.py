"""The other ranks of a target that several processes share: started, told of every step, watched and ended from here.

This process is rank 0. The others are told of steps through their stdin, which they read for as long as nothing is to
be done and which closes with this process, however it ends: then they end too. Through their stdout they say that they
have loaded, or why not; it closes when they end, which is how that is noticed at once.
"""

import array
import logging
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch

from tandem.core.config import ENVIRONMENT_PREFIX, to_environment
from tandem.core.errors import ConfigError, EngineFault
from tandem.models.ranks import LEADER, ProcessRanks
from tandem.telemetry.logs import LogConfig
from tandem.verifier.config import VerifierConfig

logger = logging.getLogger(__name__)

RANK_MODULE = "tandem.verifier.rank_process"
HAS_LOADED = "loaded"
NUMBER = "i"  # of 32 bits, as `array` has them
CLOSE_SECONDS = 5.0


class RankProcesses:
    """All ranks but this process'."""

    def __init__(self, config: VerifierConfig, module: str = RANK_MODULE) -> None:
        """Starts them; they load while this process does.

        Args:
            config: of the verifier; theirs is the same.
            module: what they run, see `rank_process`.

        Raises:
            ConfigError: they have nowhere to meet.
        """
        self.ranks = ProcessRanks(LEADER, config.tensor_parallel)
        self._is_closing = False
        self._has_ended = threading.Event()
        self._watching: threading.Thread | None = None
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="tandem-ranks-", dir=config.exchange_directory))
        except OSError as error:
            raise ConfigError(f"--exchange-directory {config.exchange_directory}: {error.strerror}") from None
        self._meeting_point = self._folder / "ranks"
        variables = {name: text for name, text in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
        level = logging.getLevelName(logging.getLogger("tandem").getEffectiveLevel()).lower()
        variables |= to_environment(config) | to_environment(LogConfig(level))
        self._processes = [
            subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", module, str(rank), str(self._meeting_point)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=variables,
            )
            for rank in range(1, config.tensor_parallel)
        ]

    def join(self, device: torch.device) -> None:
        """Waits until all have loaded, and meets them.

        Raises:
            ConfigError: what a rank cannot start with.
            EngineFault: a rank ended.
        """
        for process in self._processes:
            answer = _pipe(process.stdout).readline().decode().strip()
            if not answer:
                _reap(process)
                raise EngineFault(self.describe_end())
            if answer != HAS_LOADED:
                raise ConfigError(answer)
        self.ranks.join(self._meeting_point, device)
        self._watching = threading.Thread(target=self._watch, name="rank watch", daemon=True)
        self._watching.start()

    def tell(self, numbers: Sequence[int]) -> None:
        """Sends a step to every rank.

        Raises:
            EngineFault: one has ended.
        """
        message = array.array(NUMBER, [len(numbers), *numbers]).tobytes()
        try:
            for process in self._processes:
                stdin = _pipe(process.stdin)
                stdin.write(message)
                stdin.flush()
        except OSError:
            raise EngineFault(self.describe_end()) from None

    def wait_for_end(self) -> None:
        """Returns when a rank has ended. Only after `join`."""
        self._has_ended.wait()

    def describe_end(self) -> str:
        """Which rank ended, and how."""
        for rank, process in enumerate(self._processes, start=1):
            code = process.poll()
            if code is not None:
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                return f"rank {rank} of {self.ranks.size} {how}: the target cannot be computed without it"
        return f"one of the target's {self.ranks.size} ranks is ending: the target cannot be computed without it"

    def close(self) -> None:
        """Ends them all, and waits until they have."""
        self._is_closing = True
        for process in self._processes:
            try:
                _pipe(process.stdin).close()
            except OSError:  # it has ended, and what was to be said goes nowhere
                pass
        for process in self._processes:
            _reap(process)
            _pipe(process.stdout).close()
        if self._watching:
            self._watching.join(CLOSE_SECONDS)  # it may be aborting
        self.ranks.leave()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _watch(self) -> None:
        """Whoever waits for a rank that has ended waits no longer."""
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                selector.register(_pipe(process.stdout), selectors.EVENT_READ, process)
            for key, _ in selector.select():
                _reap(key.data)
        is_fault = not self._is_closing
        if is_fault:
            logger.error(self.describe_end())
        self._has_ended.set()
        if is_fault:
            self.ranks.abort()  # may wait until the captured rounds are gone, which whoever ends the verifier drops


def _reap(process: "subprocess.Popen[bytes]") -> None:
    """Waits for a process that is about to end, and does not take long for an answer."""
    try:
        process.wait(CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream
    return stream
