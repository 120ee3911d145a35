"""How a service's process lives: on uvloop, until a signal or its own work ends it."""

import asyncio
import logging
import signal
from collections.abc import Coroutine, Iterable
from typing import Any

import uvloop

from tandem.rpc.server import RpcServer

logger = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a service's coroutine to its end on a fresh event loop; a signal before it serves cancels it."""
    try:
        uvloop.run(_cancelled_by_signals(main))
    except asyncio.CancelledError:
        logger.info("stopped before it served")


async def _cancelled_by_signals(main: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(main)
    for number in STOP_SIGNALS:  # `serve_until_stopped` puts its own in their place
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await task


async def serve_until_stopped(
    server: RpcServer, drain_seconds: float, background: Iterable[Coroutine[Any, Any, None]] = ()
) -> None:
    """Serves until SIGTERM or SIGINT, then lets running requests finish; a second signal ends them.

    Args:
        server: started already; stopped when this returns.
        drain_seconds: most time for running requests.
        background: work beside the server. Where one ends, the server ends too, at once, and what it raised is raised.
    """
    loop = asyncio.get_running_loop()
    first, second = asyncio.Event(), asyncio.Event()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, lambda: (second if first.is_set() else first).set())
    work: list[asyncio.Task[None]] = [asyncio.create_task(coroutine) for coroutine in background]
    signalled = asyncio.create_task(first.wait())
    hurry = asyncio.create_task(second.wait())
    try:
        await asyncio.wait([signalled, *work], return_when=asyncio.FIRST_COMPLETED)
        if not any(task.done() for task in work):
            logger.info("stopping: running requests have %g s", drain_seconds)
            draining = asyncio.create_task(server.stop(drain_seconds))
            await asyncio.wait([draining, hurry], return_when=asyncio.FIRST_COMPLETED)
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)
        for task in work:
            if task.done():
                task.result()
    finally:
        await server.stop(0)
        left: list[asyncio.Task[Any]] = [signalled, hurry, *work]
        for unneeded in left:
            unneeded.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
