"""A drafter that keeps to the protocol's form and to nothing else: other tokens than it should, and often nonsense."""

import random
from contextlib import asynccontextmanager

from tandem.drafter.drafter_service import DrafterService
from tandem.drafter.memory_drafting import MemoryDrafting
from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.drafter.v1 import drafter_service_pb2_grpc
from tandem.engine.draft_source import DrafterInfo
from tandem.exchange.attached_exchange import AttachedExchange
from tandem.rpc.server import RpcServer
from tandem.telemetry.metrics import Metrics


class HostileDevice:
    """In the place of the drafter's device: no network, only chance."""

    def __init__(self, seed=0):
        self._rng = random.Random(seed)
        self._exchange = None

    async def attach(self, offer):
        self._spec = offer.spec
        self._exchange = AttachedExchange(offer.spec, offer.generation, offer.target_path, offer.drafts_path)

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


class HostileTokens:
    """In the place of the lookup drafter: attaches to a token stream, and answers with whatever a message can hold."""

    def __init__(self, seed=0):
        self._rng = random.Random(seed)

    async def attach(self, request):
        self._vocabulary_size = request.token_stream.vocabulary_size

    async def draft(self, request):
        rng, slots, k = self._rng, request.slots, request.num_tokens
        answer = pb.DraftResponse(generation=request.generation, round=request.round, num_tokens=[k] * len(slots))
        answer.token_ids.extend(rng.randrange(self._vocabulary_size) for _ in range(k * len(slots)))
        if not slots:
            return answer
        match rng.randrange(24):
            case 0:
                answer.token_ids[rng.randrange(len(answer.token_ids))] = rng.choice([-1, -(2**31), 2**31 - 1])
            case 1:
                answer.num_tokens.append(k)
            case 2:
                answer.num_tokens[0] = rng.choice([k + 1, 2**32 - 1])
            case 3:
                answer.num_tokens[0] -= 1
            case 4:
                del answer.token_ids[:]
            case 5:
                answer.generation += 1
            case 6:
                answer.round -= 1
            case 7:
                answer.token_ids.extend([2**31 - 1] * 300_000)
        return answer

    def detach(self, generation):
        pass


@asynccontextmanager
async def hostile_drafter(listen, drafting=None):
    """Serves one at `listen`, over shared memory unless told otherwise."""
    server = RpcServer()
    service = DrafterService(drafting or MemoryDrafting(HostileDevice()), DrafterInfo("hostile", 7, "test"), Metrics())
    server.add(
        drafter_service_pb2_grpc.add_DrafterServiceServicer_to_server, service, "tandem.drafter.v1.DrafterService"
    )
    await server.start(listen)
    try:
        yield
    finally:
        await server.stop(0)
