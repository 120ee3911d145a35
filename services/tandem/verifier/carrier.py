"""What passes between the verifier and a drafter: through shared memory, or as tokens in the messages themselves."""

from collections.abc import Sequence
from typing import Protocol

from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.engine.draft_source import Wanted


class Carrier(Protocol):
    """Brings a drafter what it drafts from, and its drafts back. `begin` is called by the service's event loop, the
    rest by the engine's thread."""

    @property
    def name(self) -> str:
        """What metrics call it."""
        ...

    @property
    def max_draft_tokens(self) -> int:
        """Most tokens that a slot can be given a round."""
        ...

    def begin(self, generation: int) -> pb.AttachRequest:
        """Prepares an attachment; the request says what it can be drafted from."""
        ...

    def request(self, generation: int, round_number: int, wanted: Sequence[Wanted], num_tokens: int) -> pb.DraftRequest:
        """Asks for a round's drafts. It has to be sent, unless the attachment is lost."""
        ...

    def read(
        self, slots: Sequence[int], request: pb.DraftRequest, response: pb.DraftResponse
    ) -> Sequence[Sequence[int]] | None:
        """The drafts of each of the slots that were wanted; None if the answer cannot be right.

        Args:
            slots: that drafts were wanted for.
            request: that asked for some or all of them.
            response: with one count for each slot of `request`, none above what it asked for.
        """
        ...
