"""A drafter that keeps to the protocol's form and to nothing else: other tokens than it should, and often nonsense."""

import random
from contextlib import asynccontextmanager

from tandem.drafter.drafter_service import DrafterService
from tandem.drafter.memory_drafting import MemoryDrafting
from tandem.drafter.v1 import drafter_service_pb2_grpc
from tandem.engine.draft_source import DrafterInfo
from tandem.exchange.attached_exchange import AttachedExchange
from tandem.rpc.server import RpcServer


class HostileDevice:
    """In the place of the drafter's device: no network, only chance."""

    def __init__(self, seed=0):
        self._rng = random.Random(seed)
        self._exchange = None

    async def attach(self, spec, generation, target_path, drafts_path):
        self._spec = spec
        self._exchange = AttachedExchange(spec, generation, target_path, drafts_path)

    async def draft(self, generation, round_number, slots, num_tokens):
        rng, vocabulary_size = self._rng, self._spec.vocabulary_size
        if rng.random() < 0.1:  # ids that no table has
            vocabulary_size = 2**31 - 1
        drafts = {slot: [rng.randrange(vocabulary_size) for _ in range(num_tokens)] for slot in slots}
        written = round_number - 1 if rng.random() < 0.1 else round_number  # a record of another round
        self._exchange.write_drafts(written, drafts)
        if rng.random() < 0.05:
            return [num_tokens + 1] * len(slots)
        if rng.random() < 0.05:
            return [num_tokens] * (len(slots) + 1)
        return [num_tokens] * len(slots)

    def detach(self, generation):
        self._exchange.close()


@asynccontextmanager
async def hostile_drafter(listen):
    """Serves one at `listen`."""
    server = RpcServer()
    service = DrafterService(MemoryDrafting(HostileDevice()), DrafterInfo("hostile", 7, "test"))
    server.add(
        drafter_service_pb2_grpc.add_DrafterServiceServicer_to_server, service, "tandem.drafter.v1.DrafterService"
    )
    await server.start(listen)
    try:
        yield
    finally:
        await server.stop(0)
