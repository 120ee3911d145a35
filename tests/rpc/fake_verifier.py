"""A verifier that is a real server and no model: it plays what a test scripts."""

import asyncio
from contextlib import asynccontextmanager

from tandem.internal.v1 import verifier_service_pb2 as pb
from tandem.internal.v1 import verifier_service_pb2_grpc as pb_grpc
from tandem.rpc.server import RpcServer
from tandem.v1 import model_service_pb2, types_pb2

SERVICE = "tandem.internal.v1.VerifierService"
MODEL = model_service_pb2.Model(
    name="tiny",
    context_length=256,
    vocabulary_size=512,
    dtype="float32",
    revision="abc",
    eos_token_ids=[1],
    drafter=model_service_pb2.Drafter(name="tiny-drafter", num_speculative_tokens=4, revision="def"),
)


def started(**fields):
    return pb.GenerateResponse(started=pb.SequenceStarted(**fields))


def verified(token_ids, num_drafted_tokens=0, num_draft_tokens=None, logprobs=()):
    return pb.GenerateResponse(
        round=pb.Round(
            token_ids=token_ids,
            num_drafted_tokens=num_drafted_tokens,
            num_draft_tokens=num_draft_tokens,
            logprobs=logprobs,
        )
    )


def finished(reason=types_pb2.FINISH_REASON_LENGTH, **fields):
    return pb.GenerateResponse(finished=pb.SequenceFinished(reason=reason, **fields))


async def play(*responses):
    for response in responses:
        yield response


def held(*rest):
    """An event, and a script that starts and plays `rest` once that is set."""
    go_on = asyncio.Event()

    async def script(request):
        yield started()
        await go_on.wait()
        for response in rest:
            yield response

    return go_on, script


class FakeVerifier(pb_grpc.VerifierServiceServicer):
    """Plays `script` for each request; remembers requests, deadlines, and how many sequences it still works for."""

    def __init__(self):
        self.model = model_service_pb2.Model()
        self.model.CopyFrom(MODEL)
        self.script = lambda request: play(started(seed=7), finished())
        self.describe_error = None
        self.requests = []
        self.deadlines = []
        self.num_running = 0
        self.idle = asyncio.Event()

    async def DescribeModel(self, request, context):
        if self.describe_error:
            raise self.describe_error
        return pb.DescribeModelResponse(model=self.model)

    async def Generate(self, request, context):
        self.requests.append(request)
        self.deadlines.append(context.time_remaining())
        self.num_running += 1
        self.idle.clear()
        try:
            async for response in self.script(request):
                yield response
        finally:
            self.num_running -= 1
            if self.num_running == 0:
                self.idle.set()


@asynccontextmanager
async def serving(fake, address, is_serving=True):
    """`fake` behind `address`, which a gateway dials; yields its server."""
    server = RpcServer()
    server.add(pb_grpc.add_VerifierServiceServicer_to_server, fake, SERVICE)
    await server.start(address)
    server.set_serving(is_serving)
    try:
        yield server
    finally:
        await server.stop(0)
