"""The end of a server: the requests that run are counted, and new ones refused."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from tandem.core.errors import Draining


class Drain:
    """The requests of one process, at whichever of its doors they came in."""

    def __init__(self) -> None:
        """Starts open and idle."""
        self._num_requests = 0
        self._has_begun = False
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self) -> None:
        """Refuses requests from now on."""
        self._has_begun = True

    def check(self) -> None:
        """Whether a request could begin now.

        Raises:
            Draining: the server is about to stop.
        """
        if self._has_begun:
            raise Draining("this server is about to stop", retry_after_seconds=1.0)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts a request while inside."""
        self._num_requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._num_requests -= 1
            if self._num_requests == 0:
                self._idle.set()

    async def wait_until_idle(self) -> None:
        """Returns when no request is left."""
        await self._idle.wait()
