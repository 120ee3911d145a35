"""What a test does with a verifier's link to a drafter."""

import asyncio
import time
from contextlib import asynccontextmanager

from tandem.engine.draft_source import Drafts
from tests.engines import wanted
from tests.rpc.fake_drafter import drafting, drafts_of

TIMEOUT_SECONDS = 0.1


async def until(condition, seconds=3.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def attached(fake, address, link):
    async with drafting(fake, address) as server:
        await until(lambda: link.info)
        yield server
    await until(lambda: link.info is None)


async def play_round(link, slots=(0, 3), num_tokens=3):
    """What a round of the engine sees."""
    assert await asyncio.to_thread(link.begin, wanted(list(slots), num_tokens))
    return await asyncio.to_thread(link.collect)


def drafts(slots=(0, 3), num_tokens=3):
    return Drafts([drafts_of(slot, num_tokens) for slot in slots])
