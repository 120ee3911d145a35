"""From the engine's thread to the coroutines that wait for a sequence's outputs."""

import asyncio
from collections.abc import AsyncGenerator

from tandem.core.sequence import Sequence
from tandem.engine.engine import Engine
from tandem.engine.output import SequenceOutput


class OutputStreams:
    """One queue a sequence. A queue holds at most the tokens that its request may generate, so none is bounded."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Delivers on `loop`."""
        self._loop = loop
        self._queues: dict[int, asyncio.Queue[SequenceOutput]] = {}

    def publish(self, outputs: list[SequenceOutput]) -> None:
        """Takes a round's outputs from the engine's thread; returns at once."""
        self._loop.call_soon_threadsafe(self._deliver, outputs)

    async def generate(self, engine: Engine, sequence: Sequence) -> AsyncGenerator[SequenceOutput, None]:
        """The sequence's outputs up to its end. Closing the iterator cancels the sequence.

        Raises:
            TandemError: the engine does not take the sequence in.
        """
        queue: asyncio.Queue[SequenceOutput] = asyncio.Queue()
        self._queues[sequence.sequence_id] = queue
        has_ended = True
        try:
            engine.submit(sequence)
            has_ended = False
            while not has_ended:
                output = await queue.get()
                has_ended = output.end is not None
                yield output
        finally:
            del self._queues[sequence.sequence_id]
            if not has_ended:
                engine.cancel(sequence.sequence_id)

    def _deliver(self, outputs: list[SequenceOutput]) -> None:
        for output in outputs:
            queue = self._queues.get(output.sequence_id)
            if queue is not None:  # else nobody waits any more
                queue.put_nowait(output)
