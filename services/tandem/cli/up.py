"""`tandem up`: gateway, verifier and drafter on this machine, kept running until told to stop."""

import argparse
import asyncio
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tandem.cli import console
from tandem.cli.parser import Parser, load_config
from tandem.cli.plan import Plan, add_plan_options, make_plan, memory_directory
from tandem.cli.supervisor import Supervisor
from tandem.cli.up_config import UpConfig
from tandem.core.errors import ConfigError


def configure(parser: Parser) -> None:
    """Adds the command's options."""
    add_plan_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM."""
    up = load_config(UpConfig, arguments)
    with private_directory(memory_directory(arguments, up)) as folder:
        asyncio.run(_up(make_plan(arguments, up, folder)))
    return 0


@contextmanager
def private_directory(parent: str) -> Iterator[Path]:
    """A folder for sockets and shared memory that only this user can enter, and that is gone afterwards.

    Raises:
        ConfigError: it cannot be made in `parent`, the exchange directory.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix="tandem-", dir=parent))
    except OSError as error:
        raise ConfigError(f"--exchange-directory {parent}: {error.strerror}") from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


async def _up(plan: Plan) -> None:
    supervisor = Supervisor(plan, console.service_line, console.status, console.notice)
    serving = asyncio.create_task(_serve(supervisor, plan))
    is_stopping = False

    def stop() -> None:
        nonlocal is_stopping
        if is_stopping:
            supervisor.hurry()
        else:
            is_stopping = True
            serving.cancel()
            console.notice("stopping; once more to wait for no request")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    try:
        await serving
    except asyncio.CancelledError:
        pass


async def _serve(supervisor: Supervisor, plan: Plan) -> None:
    async with supervisor:
        console.status(f"tandem is ready on {plan.gateway}")
        if plan.http:
            console.status(f"OpenAI's API is on http://{plan.http}/v1")
        await supervisor.wait()
