"""A drafter that is a real server and no model: it answers what a test scripts."""

import asyncio
import os
from contextlib import asynccontextmanager

from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.drafter.v1 import drafter_service_pb2_grpc as pb_grpc
from tandem.exchange.layout import layout_of, pack_record
from tandem.exchange.spec import ExchangeSpec, SharedLayer
from tandem.rpc.server import RpcServer

SERVICE = "tandem.drafter.v1.DrafterService"
SPEC = ExchangeSpec(
    dtype="float32",
    num_slots=8,
    max_draft_tokens=4,
    max_blocks=4,
    block_size=4,
    vocabulary_size=64,
    hidden_size=32,
    layers=(SharedLayer("sliding_attention", 4, 2, 8), SharedLayer("full_attention", 4, 1, 16)),
)


def drafts_of(slot, num_tokens):
    """What an honest fake drafts for a slot."""
    return tuple(slot * 10 + index for index in range(num_tokens))


class FakeDrafter(pb_grpc.DrafterServiceServicer):
    """Plays `script` for each round: an async generator over (drafter, request). Remembers what it was told."""

    def __init__(self, script=None, **response):
        self.script = script or honest
        self.response = pb.AttachResponse(**{"name": "fake", "num_speculative_tokens": 4, "revision": "r1", **response})
        self.attach_error = None
        self.says_hello = True
        self.attached = []  # AttachRequests
        self.rounds = []  # DraftRequests
        self.go_on = asyncio.Event()

    async def Attach(self, request, context):
        self.attached.append(request)
        if self.attach_error:
            raise self.attach_error
        return self.response

    async def Draft(self, requests, context):
        async for request in requests:
            if not request.slots:
                if not self.says_hello:
                    return
                yield answer(request, [])
                continue
            self.rounds.append(request)
            async for response in self.script(self, request):
                yield response

    def write(self, request, drafts):
        """Puts token ids by slot into the drafts file."""
        layout = layout_of(SPEC)
        descriptor = os.open(self.attached[-1].shared_memory.drafts_path, os.O_RDWR)
        for slot, token_ids in drafts.items():
            os.pwrite(descriptor, pack_record(request.generation, request.round, token_ids), layout.record_offset(slot))
        os.close(descriptor)


def answer(request, counts, **fields):
    return pb.DraftResponse(
        **{"generation": request.generation, "round": request.round, "num_tokens": counts, **fields}
    )


async def honest(drafter, request):
    drafter.write(request, {slot: drafts_of(slot, request.num_tokens) for slot in request.slots})
    yield answer(request, [request.num_tokens] * len(request.slots))


@asynccontextmanager
async def drafting(fake, address):
    """`fake` behind `address`, which a verifier's link dials; yields its server."""
    server = RpcServer()
    server.add(pb_grpc.add_DrafterServiceServicer_to_server, fake, SERVICE)
    await server.start(address)
    try:
        yield server
    finally:
        await server.stop(0)
