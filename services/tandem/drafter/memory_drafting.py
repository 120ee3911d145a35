"""Drafts from shared memory: what the messages say, as the device wants it."""

from tandem.core.errors import ExchangeError, InvalidRequest
from tandem.drafter.device import Device
from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.exchange.layout import LAYOUT_VERSION
from tandem.exchange.offer import CudaOffer, FileOffer
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
        is_cuda = request.HasField("cuda_memory")
        field = "cuda_memory" if is_cuda else "shared_memory"
        if not is_cuda and not request.HasField("shared_memory"):
            raise InvalidRequest(field, "is needed: this drafter cannot draft from tokens alone")
        if request.layout_version != LAYOUT_VERSION:
            raise InvalidRequest("layout_version", f"must be {LAYOUT_VERSION}")
        try:
            await self._device.attach(_offer(request))
        except ExchangeError as error:
            raise InvalidRequest(field, str(error)) from None

    async def draft(self, request: pb.DraftRequest) -> pb.DraftResponse | None:
        """Says how many drafts the device wrote."""
        counts = await self._device.draft(request.generation, request.round, request.slots, request.num_tokens)
        if counts is None:
            return None
        return pb.DraftResponse(generation=request.generation, round=request.round, num_tokens=counts)

    def detach(self, generation: int) -> None:
        """Unmaps that verifier's memory."""
        self._device.detach(generation)


def _offer(request: pb.AttachRequest) -> FileOffer | CudaOffer:
    if request.HasField("cuda_memory"):
        memory = request.cuda_memory
        return CudaOffer(_spec(memory), request.generation, memory.handle, memory.device_uuid, memory.flags_path)
    files = request.shared_memory
    return FileOffer(_spec(files), request.generation, files.target_path, files.drafts_path)


def _spec(memory: pb.SharedMemory | pb.CudaMemory) -> ExchangeSpec:
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
