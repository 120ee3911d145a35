"""Drafts from shared memory: what the messages say, as the device wants it."""

from tandem.core.errors import ExchangeError, InvalidRequest
from tandem.drafter.device import Device
from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.exchange.layout import LAYOUT_VERSION
from tandem.exchange.spec import ExchangeSpec, SharedLayer


class MemoryDrafting:
    """Lets a device draft."""

    def __init__(self, device: Device) -> None:
        """The device maps what verifiers share."""
        self._device = device

    async def attach(self, request: pb.AttachRequest) -> None:
        """Maps a verifier's memory.

        Raises:
            InvalidRequest: there is none, or it is not what it should be.
        """
        if not request.HasField("shared_memory"):
            raise InvalidRequest("shared_memory", "is needed: this drafter cannot draft from tokens alone")
        if request.layout_version != LAYOUT_VERSION:
            raise InvalidRequest("layout_version", f"must be {LAYOUT_VERSION}")
        memory = request.shared_memory
        try:
            await self._device.attach(_spec(memory), request.generation, memory.target_path, memory.drafts_path)
        except ExchangeError as error:
            raise InvalidRequest("shared_memory", str(error)) from None

    async def draft(self, request: pb.DraftRequest) -> pb.DraftResponse | None:
        """Says how many drafts the device wrote."""
        counts = await self._device.draft(request.generation, request.round, request.slots, request.num_tokens)
        if counts is None:
            return None
        return pb.DraftResponse(generation=request.generation, round=request.round, num_tokens=counts)

    def detach(self, generation: int) -> None:
        """Unmaps that verifier's memory."""
        self._device.detach(generation)


def _spec(memory: pb.SharedMemory) -> ExchangeSpec:
    return ExchangeSpec(
        dtype=memory.dtype,
        num_slots=memory.num_slots,
        max_draft_tokens=memory.max_draft_tokens,
        max_blocks=memory.max_blocks,
        block_size=memory.block_size,
        vocabulary_size=memory.vocabulary_size,
        hidden_size=memory.hidden_size,
        layers=tuple(
            SharedLayer(
                group=layer.group,
                num_blocks=layer.num_blocks,
                num_kv_heads=layer.num_kv_heads,
                head_dim=layer.head_dim,
                kv_dtype=layer.kv_dtype,
                key_exponent=layer.key_exponent,
                value_exponent=layer.value_exponent,
            )
            for layer in memory.layers
        ),
    )
