"""The verifiers behind this gateway: who is there, who serves what, and who gets a request."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from tandem.core.errors import Loading, NoReplica, UnknownModel
from tandem.gateway import balancing
from tandem.gateway.verifier_addresses import VerifierAddresses
from tandem.gateway.verifier_link import VerifierLink, identity
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.v1 import model_service_pb2


class VerifierPool:
    """Keeps a link to each verifier that there is, while `follow` runs."""

    def __init__(
        self,
        addresses: VerifierAddresses,
        connect: Callable[[str], VerifierLink],
        refresh_seconds: float,
        metrics: Metrics,
    ) -> None:
        """Knows nobody yet.

        Args:
            addresses: of the verifiers.
            connect: makes the link to an address; `close` closes it.
            refresh_seconds: until addresses are looked up again.
            metrics: counts who serves.
        """
        self._addresses = addresses
        self._connect = connect
        self._refresh_seconds = refresh_seconds
        self._metrics = metrics
        self._links: dict[str, VerifierLink] = {}  # by address
        self._watching: dict[str, asyncio.Task[None]] = {}

    async def follow(self, on_change: Callable[[bool], None]) -> None:
        """Follows verifiers and their health for as long as it runs.

        Args:
            on_change: told whether requests can be served, whenever the state of a verifier is news.
        """

        def tell() -> None:
            num_serving = sum(link.model is not None for link in self._links.values())
            self._metrics.set(names.SERVING_VERIFIERS, num_serving)
            on_change(num_serving > 0)

        async with asyncio.TaskGroup() as tasks:
            while True:
                found = await self._addresses.find()
                for address in found - self._links.keys():
                    link = self._links[address] = self._connect(address)
                    self._watching[address] = tasks.create_task(link.watch(tell))
                for address in self._links.keys() - found:
                    self._watching.pop(address).cancel()
                    tasks.create_task(_leave(self._links.pop(address)))
                await asyncio.sleep(self._refresh_seconds)

    async def close(self) -> None:
        """Breaks what is left of all calls."""
        for link in self._links.values():
            await link.close()

    def model(self, name: str) -> model_service_pb2.Model:
        """The model called `name`, or with an empty name the one served.

        Where verifiers differ, as they do while a new version is rolled out, it is what most of them serve.

        Raises:
            NoReplica: no verifier answers.
            Loading: some answer, and say that they do not serve.
            UnknownModel: others are served.
        """
        return self._link(name)[1]

    async def describe(self, name: str) -> model_service_pb2.Model:
        """Like `model`, asked anew: drafters come and go.

        Raises:
            TandemError: as `model`, or what the verifier answered.
        """
        link, _ = self._link(name)
        return await link.describe()

    def has_others(self, link: VerifierLink) -> bool:
        """Whether there is any verifier but that one, able to serve now or not."""
        return any(other is not link for other in self._links.values())

    def choose(
        self, model: model_service_pb2.Model, digests: Sequence[bytes], without: Collection[VerifierLink] = ()
    ) -> VerifierLink | None:
        """Who gets a request; None if nobody can. One whose calls broke a moment ago only where there is no other.

        Args:
            model: that has to be served.
            digests: the prompt's `prefix_digests`, which are remembered.
            without: verifiers that cannot be asked.
        """
        wanted = identity(model)
        able = [link for link in self._links.values() if link not in without and link.identity == wanted]
        if not able:
            return None
        link = balancing.choose([link for link in able if not link.ejection.is_in_force] or able, digests)
        link.prefixes.add(digests)
        return link

    def _link(self, name: str) -> tuple[VerifierLink, model_service_pb2.Model]:
        """A verifier that serves the model called `name`, as `model` says."""
        serving = [(link, link.model) for link in self._links.values() if link.model]
        if not serving:
            if any(link.is_connected for link in self._links.values()):
                raise Loading("the model is not ready")
            raise NoReplica("no verifier answers")
        named = [(link, model) for link, model in serving if name in ("", model.name)]
        if not named:
            raise UnknownModel(f"no model {name[:100]!r} is served here")
        [(most, _)] = Counter(link.identity for link, _ in named).most_common(1)
        return next(one for one in named if one[0].identity == most)


async def _leave(link: VerifierLink) -> None:
    """Closes a link once the texts that come over it are complete."""
    try:
        await link.workload.wait_until_idle()
    finally:
        await link.close()
