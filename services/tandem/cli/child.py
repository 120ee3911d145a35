"""One service as a process of its own, under the eyes of the process that started it."""

import asyncio
import os
import sys
from collections.abc import Callable

from tandem.cli.plan import ServicePlan
from tandem.core.config import ENVIRONMENT_PREFIX

MAX_LINE_BYTES = 1 << 20
# After the signal that tells it to hurry.
HURRY_SECONDS = 2.0


class Child:
    """A running service. Its lines are passed on; the one that says why it failed is kept."""

    def __init__(self, plan: ServicePlan, process: asyncio.subprocess.Process, on_line: Callable[[str, str], None]):
        """Watches `process`; `on_line` is given the service's name and each of its lines."""
        self._plan = plan
        self._process = process
        self._on_line = on_line
        self._error_prefix = f"tandem {plan.name}: error: "
        self.error = ""  # the line it failed with, without its prefix
        self._reading = asyncio.create_task(self._read())
        self._exited = asyncio.create_task(process.wait())

    @classmethod
    async def start(cls, plan: ServicePlan, on_line: Callable[[str, str], None]) -> "Child":
        """Starts a service that ends when this process does, in whatever way.

        It leads a session of its own: Ctrl-C on the terminal reaches only us, and we stop the services in order. It is
        told all by arguments and nothing by the environment, where one name would mean several services' settings.
        """
        environment = {name: text for name, text in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
        process = await asyncio.create_subprocess_exec(
            # -P: what lies in the working directory is none of our modules.
            *(sys.executable, "-P", "-m", plan.module, *plan.arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            limit=MAX_LINE_BYTES,
        )
        return cls(plan, process, on_line)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def wait(self) -> int:
        """The exit code, once it has ended and said its last; negative where a signal ended it."""
        await asyncio.shield(self._exited)
        await asyncio.wait([self._reading], timeout=1.0)
        return self._exited.result()

    async def stop(self, hurry: asyncio.Event) -> None:
        """Lets running requests finish, within limits; then nothing is left of it.

        Args:
            hurry: when set, running requests are not waited for.
        """
        hurried = asyncio.create_task(hurry.wait())
        try:
            self._signal(self._process.terminate)
            await asyncio.wait(
                [self._exited, hurried], timeout=self._plan.grace_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            self._signal(self._process.terminate)
            await asyncio.wait([self._exited], timeout=HURRY_SECONDS)
        finally:
            self._signal(self._process.kill)
            hurried.cancel()
        await self.wait()

    def _signal(self, send: Callable[[], None]) -> None:
        if not self._exited.done():
            try:
                send()
            except ProcessLookupError:
                pass

    async def _read(self) -> None:
        assert self._process.stdout
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # longer than any line of ours; its beginning is dropped
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            if text.startswith(self._error_prefix):
                self.error = text.removeprefix(self._error_prefix)
            else:
                self._on_line(self._plan.name, text)
