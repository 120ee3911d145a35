"""A drafter that reads the target's own state: a network, in a process on the same device."""

from collections.abc import Sequence

from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.engine.draft_source import Wanted
from tandem.exchange.layout import LAYOUT_VERSION
from tandem.exchange.shared_exchange import SharedExchange
from tandem.exchange.spec import ExchangeSpec


class MemoryCarrier:
    """A `Carrier` of counts: tensors and drafts stand in a `SharedExchange`."""

    name = "memory"

    def __init__(self, exchange: SharedExchange) -> None:
        """Shares `exchange`, which the caller closes."""
        self._exchange = exchange

    @property
    def max_draft_tokens(self) -> int:
        """Room in the drafts file."""
        return self._exchange.spec.max_draft_tokens

    def begin(self, generation: int) -> pb.AttachRequest:
        """Names the files."""
        self._exchange.renew(generation)
        return pb.AttachRequest(
            layout_version=LAYOUT_VERSION, generation=generation, shared_memory=shared_memory_of(self._exchange)
        )

    def request(self, generation: int, round_number: int, wanted: Sequence[Wanted], num_tokens: int) -> pb.DraftRequest:
        """Names the slots."""
        return pb.DraftRequest(
            generation=generation, round=round_number, slots=[one.slot for one in wanted], num_tokens=num_tokens
        )

    def read(
        self, slots: Sequence[int], request: pb.DraftRequest, response: pb.DraftResponse
    ) -> Sequence[Sequence[int]] | None:
        """Reads the drafts file, which must hold just what the answer says."""
        return self._exchange.read_drafts(request.generation, request.round, slots, response.num_tokens)


def shared_memory_of(exchange: SharedExchange) -> pb.SharedMemory:
    """Paths and sizes, as a drafter is told them."""
    spec = exchange.spec
    return pb.SharedMemory(
        target_path=str(exchange.target_path),
        drafts_path=str(exchange.drafts_path),
        dtype=spec.dtype,
        num_slots=spec.num_slots,
        max_draft_tokens=spec.max_draft_tokens,
        max_blocks=spec.max_blocks,
        block_size=spec.block_size,
        vocabulary_size=spec.vocabulary_size,
        hidden_size=spec.hidden_size,
        layers=shared_layers(spec),
    )


def shared_layers(spec: ExchangeSpec) -> list[pb.SharedLayer]:
    """Whose KV is shared."""
    return [
        pb.SharedLayer(
            group=layer.group,
            num_blocks=layer.num_blocks,
            num_kv_heads=layer.num_kv_heads,
            head_dim=layer.head_dim,
            kv_dtype=layer.kv_dtype,
            key_exponent=layer.key_exponent,
            value_exponent=layer.value_exponent,
        )
        for layer in spec.layers
    ]
