"""Drafts from a verifier's token stream, by looking them up."""

from tandem.core.errors import InvalidRequest
from tandem.drafter.lookup_table import LookupTable
from tandem.drafter.v1 import drafter_service_pb2 as pb


class LookupDrafting:
    """Knows what the verifier has sent since it attached, and nothing else. Quick enough for the event loop."""

    def __init__(self, num_speculative_tokens: int, memory_tokens: int) -> None:
        """Nobody is attached yet.

        Args:
            num_speculative_tokens: most tokens it drafts a round.
            memory_tokens: most tokens that are kept.
        """
        self._num_speculative_tokens = num_speculative_tokens
        self._memory_tokens = memory_tokens
        self._generation: int | None = None
        self._num_slots = 0
        self._table = LookupTable(memory_tokens)

    async def attach(self, request: pb.AttachRequest) -> None:
        """Begins with an empty table.

        Raises:
            InvalidRequest: the verifier sends no tokens.
        """
        if not request.HasField("token_stream"):
            raise InvalidRequest("token_stream", "is needed: this drafter reads no shared memory")
        self._generation, self._num_slots = request.generation, request.token_stream.num_slots
        self._table = LookupTable(self._memory_tokens)

    async def draft(self, request: pb.DraftRequest) -> pb.DraftResponse | None:
        """Takes in what is new, then looks up what is wanted.

        Raises:
            InvalidRequest: it names a slot that there is not.
        """
        if request.generation != self._generation:
            return None
        if any(slot >= self._num_slots for slot in [*request.slots, *(new.slot for new in request.tokens)]):
            raise InvalidRequest("slots", f"must be below {self._num_slots}")
        for new in request.tokens:
            self._table.extend(new.slot, new.sequence, new.start, new.token_ids)
        num_tokens = min(request.num_tokens, self._num_speculative_tokens)
        drafts = [self._table.draft(slot, num_tokens) for slot in request.slots]
        return pb.DraftResponse(
            generation=request.generation,
            round=request.round,
            num_tokens=[len(token_ids) for token_ids in drafts],
            token_ids=[token_id for token_ids in drafts for token_id in token_ids],
        )

    def detach(self, generation: int) -> None:
        """Forgets everything."""
        if generation == self._generation:
            self._generation, self._table = None, LookupTable(self._memory_tokens)
