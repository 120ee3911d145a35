"""The processes under measurement, as `tandem up` starts them."""

import argparse
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.failure import MeasurementFailed
from tandem.cli.bench.verifier_client import VerifierClient
from tandem.cli.plan import Plan, make_plan
from tandem.cli.supervisor import Supervisor
from tandem.cli.up import private_directory
from tandem.rpc.channel import open_channel
from tandem.verifier.config import IN_PROCESS

MAX_KEPT_LINES = 50


class Journal:
    """What the services said and what became of them."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        """Passes on to `progress` which of them are ready."""
        self.on_event = progress
        self.lines: deque[str] = deque(maxlen=MAX_KEPT_LINES)
        self._troubles: list[str] = []

    def on_line(self, service: str, line: str) -> None:
        """Keeps a line, for when something fails."""
        self.lines.append(f"{service}: {line}")

    def on_trouble(self, what: str) -> None:
        """Keeps what makes figures worthless."""
        self._troubles.append(what)

    def check(self) -> None:
        """Raises MeasurementFailed if a service was not there all the time."""
        if self._troubles:
            raise MeasurementFailed(self._troubles[0])


@asynccontextmanager
async def open_replica(
    config: BenchConfig,
    drafter: str,
    folder: Path,
    journal: Journal,
    *,
    lookup: bool = False,
    adaptive_k: bool = False,
    formats: Mapping[str, str] | None = None,
    http: bool = False,
) -> AsyncIterator[Plan]:
    """Services that are ready; with the drafter inside the verifier, without a gateway.

    Args:
        config: which pair, and how many threads.
        drafter: where drafts are made, as for `tandem up`.
        folder: where the services meet, for them alone.
        journal: told what happens.
        lookup: whether there is a lookup drafter too.
        adaptive_k: as the verifier's setting; a measurement of K itself wants it fixed.
        formats: the verifier's settings of number formats, where they are not the usual ones.
        http: whether the gateway serves HTTP too.

    Raises:
        ConfigError: a service refuses its settings or checkpoint.
        StartFailed: a service ended for another reason.
    """
    # Nothing of the environment: the table would not show it.
    settings = argparse.Namespace(
        listen="127.0.0.1:0",
        http_listen="127.0.0.1:0" if http else "",
        log_level="warning",
        threads=str(config.threads),
        num_speculative_tokens=str(config.num_speculative_tokens),
        adaptive_k=str(adaptive_k),
        **(formats or {}),
    )
    plan = make_plan(settings, config.up(drafter, lookup), folder, {})
    if drafter == IN_PROCESS:
        plan = replace(plan, services=tuple(service for service in plan.services if service.name == "verifier"))
    async with Supervisor(plan, journal.on_line, journal.on_event, journal.on_trouble):
        yield plan


@asynccontextmanager
async def open_verifier(
    config: BenchConfig,
    drafter: str,
    journal: Journal,
    *,
    lookup: bool = False,
    adaptive_k: bool = False,
    formats: Mapping[str, str] | None = None,
) -> AsyncIterator[VerifierClient]:
    """A verifier to call, with services and a folder of its own. See `open_replica`, of which this is part."""
    with private_directory(config.exchange_directory) as folder:
        replica = open_replica(config, drafter, folder, journal, lookup=lookup, adaptive_k=adaptive_k, formats=formats)
        async with replica as plan, open_channel(plan.verifier) as channel:
            yield VerifierClient(channel)
