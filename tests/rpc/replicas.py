"""Several verifiers that play scripts, and a client of a gateway before them."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

from tandem.telemetry import metrics as names
from tests.rpc.fake_verifier import FakeVerifier, serving


class Replica(FakeVerifier):
    """A fake verifier and its server."""

    server = None


@asynccontextmanager
async def replicas(open_client, addresses, **settings):
    """A verifier at each address, and a client of a gateway that knows that all of them serve."""
    async with AsyncExitStack() as stack:
        made = []
        for address in addresses:
            made.append(Replica())
            made[-1].server = await stack.enter_async_context(serving(made[-1], address))
        client = await stack.enter_async_context(open_client(**({"verifier": ",".join(addresses)} | settings)))
        await knows(client, len(addresses))
        yield client, *made


async def knows(client, count):
    """Waits until a gateway knows so many verifiers that serve."""
    async with asyncio.timeout(5):
        while client.gateway.metrics.value(names.SERVING_VERIFIERS) != count:
            await asyncio.sleep(0.01)


def both_play(script, *verifiers):
    """Has all verifiers play one script; it is given the number of the request, counted over all of them."""
    requests = []

    def numbered(request):
        requests.append(request)
        return script(request, len(requests))

    for one in verifiers:
        one.script = numbered
    return requests
