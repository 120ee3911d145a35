"""A drafter that reads the target's own state on a GPU, and draws its rounds' beginning from there as well."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.engine.draft_source import Wanted
from tandem.exchange.layout import LAYOUT_VERSION
from tandem.verifier.memory_carrier import shared_layers

if TYPE_CHECKING:  # a package comes with it that the CPU can do without
    from tandem.exchange.cuda_exchange import CudaExchange


class CudaCarrier:
    """A `Carrier` of counts: tensors, drafts and the order of rounds stand in a `CudaExchange`."""

    name = "cuda"

    def __init__(self, exchange: "CudaExchange") -> None:
        """Shares `exchange`, which the caller closes."""
        self._exchange = exchange

    @property
    def max_draft_tokens(self) -> int:
        """Room in the drafts of a slot."""
        return self._exchange.spec.max_draft_tokens

    def begin(self, generation: int) -> pb.AttachRequest:
        """Hands over the memory."""
        self._exchange.renew(generation)
        return pb.AttachRequest(
            layout_version=LAYOUT_VERSION, generation=generation, cuda_memory=cuda_memory_of(self._exchange)
        )

    def request(self, generation: int, round_number: int, wanted: Sequence[Wanted], num_tokens: int) -> pb.DraftRequest:
        """Names the slots, and says on the current stream that their inputs are written."""
        self._exchange.post(round_number)
        return pb.DraftRequest(
            generation=generation, round=round_number, slots=[one.slot for one in wanted], num_tokens=num_tokens
        )

    def read(
        self, slots: Sequence[int], request: pb.DraftRequest, response: pb.DraftResponse
    ) -> Sequence[Sequence[int]] | None:
        """Waits for the GPU to come to the end of the round."""
        return self._exchange.read_drafts(request.round, slots, response.num_tokens)


def cuda_memory_of(exchange: "CudaExchange") -> pb.CudaMemory:
    """Handle and sizes, as a drafter is told them."""
    spec = exchange.spec
    return pb.CudaMemory(
        handle=exchange.handle,
        device_uuid=exchange.device_uuid,
        flags_path=str(exchange.flags_path),
        dtype=spec.dtype,
        num_slots=spec.num_slots,
        max_draft_tokens=spec.max_draft_tokens,
        max_blocks=spec.max_blocks,
        block_size=spec.block_size,
        vocabulary_size=spec.vocabulary_size,
        hidden_size=spec.hidden_size,
        layers=shared_layers(spec),
    )
