"""The handshake with a drafter."""

import asyncio
import secrets
from dataclasses import dataclass
from typing import TypeAlias

import grpc

from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.drafter.v1 import drafter_service_pb2_grpc as pb_grpc
from tandem.engine.draft_source import DrafterInfo
from tandem.verifier.carrier import Carrier

ATTACH_SECONDS = 60.0  # a drafter may have to read its weights again
HELLO_SECONDS = 5.0
MAX_NAME_CHARACTERS = 100
MAX_REASON_CHARACTERS = 500  # a cause and its remedy

Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.DraftRequest, pb.DraftResponse]"  # subscriptable in its stubs only


class BrokenStream(Exception):
    """The stream cannot go on; the text says why."""


@dataclass(frozen=True)
class Attachment:
    """A drafter that has agreed to draft, and the stream to it."""

    generation: int
    info: DrafterInfo
    call: Call


async def attach(channel: grpc.aio.Channel, carrier: Carrier, target_revision: str) -> Attachment:
    """Offers the drafter behind a channel what it can draft from.

    Raises:
        BrokenStream: it does not do as `DrafterService` says.
        TimeoutError: it does not answer.
        grpc.aio.AioRpcError: it refuses, or the connection broke.
    """
    drafter = pb_grpc.DrafterServiceStub(channel)
    generation = secrets.randbelow((1 << 63) - 1) + 1
    request = carrier.begin(generation)
    request.num_speculative_tokens = carrier.max_draft_tokens
    request.target_revision = target_revision
    response = await drafter.Attach(request, timeout=ATTACH_SECONDS)
    info = DrafterInfo(
        name=printable(response.name),
        num_speculative_tokens=min(response.num_speculative_tokens, carrier.max_draft_tokens),
        revision=printable(response.revision),
    )
    call = drafter.Draft()
    try:
        # A round without slots shows that the stream works, and tells the drafter whose it is.
        await call.write(pb.DraftRequest(generation=generation))
        async with asyncio.timeout(HELLO_SECONDS):
            hello = await call.read()
        if not isinstance(hello, pb.DraftResponse) or hello.generation != generation or hello.round or hello.num_tokens:
            raise BrokenStream("it does not answer a round without slots as it should")
    except BaseException:
        call.cancel()
        raise
    return Attachment(generation, info, call)


def printable(text: str, max_characters: int = MAX_NAME_CHARACTERS) -> str:
    """A drafter's words, fit for a log."""
    return "".join(character if character.isprintable() else "?" for character in text[:max_characters])
