"""A drafter without shared memory: each token is sent to it once, and its drafts come with its answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.engine.draft_source import Wanted

# Of one request. A drafter has to read them within a round's time, and a message has its bounds: a token id takes up
# to five bytes on the wire.
MAX_TOKENS_A_REQUEST = 16_384


@dataclass
class _Sent:
    """What the drafter knows of the sequence in a slot."""

    sequence_id: int
    num_tokens: int = 0


class TokenCarrier:
    """A `Carrier` of tokens. It remembers what has been sent, slot by slot, for one attachment."""

    name = "tokens"

    def __init__(self, num_slots: int, vocabulary_size: int, max_draft_tokens: int) -> None:
        """Nothing has been sent.

        Args:
            num_slots: sequences that can be drafted for at a time.
            vocabulary_size: of the target.
            max_draft_tokens: most tokens that a slot can be given a round.
        """
        self.max_draft_tokens = max_draft_tokens
        self._sizes = pb.TokenStream(num_slots=num_slots, vocabulary_size=vocabulary_size)
        self._generation = 0
        self._sent: dict[int, _Sent] = {}

    def begin(self, generation: int) -> pb.AttachRequest:
        """Tells the sizes."""
        return pb.AttachRequest(generation=generation, token_stream=self._sizes)

    def request(self, generation: int, round_number: int, wanted: Sequence[Wanted], num_tokens: int) -> pb.DraftRequest:
        """Sends what is new of each sequence, and asks for drafts where all is known then.

        Who lacks least comes first, so that a long prompt, which takes several rounds, keeps nobody waiting.
        """
        if generation != self._generation:
            self._generation, self._sent = generation, {}
        request = pb.DraftRequest(generation=generation, round=round_number, num_tokens=num_tokens)
        room = MAX_TOKENS_A_REQUEST
        for one in sorted(wanted, key=lambda one: len(one.token_ids) - self._sent_to(one).num_tokens):
            sent = self._sent_to(one)
            new = one.token_ids[sent.num_tokens : sent.num_tokens + room]
            if new:
                request.tokens.add(slot=one.slot, sequence=one.sequence_id, start=sent.num_tokens, token_ids=new)
                sent.num_tokens += len(new)
                room -= len(new)
            if sent.num_tokens == len(one.token_ids):
                request.slots.append(one.slot)
        return request

    def read(
        self, slots: Sequence[int], request: pb.DraftRequest, response: pb.DraftResponse
    ) -> Sequence[Sequence[int]] | None:
        """Takes the drafts from the answer; slots that were not asked for yet have none."""
        ends = [0, *accumulate(response.num_tokens)]
        if len(response.token_ids) != ends[-1]:
            return None
        drafts = {
            slot: tuple(response.token_ids[start:end])
            for slot, (start, end) in zip(request.slots, pairwise(ends), strict=True)
        }
        return [drafts.get(slot, ()) for slot in slots]

    def _sent_to(self, one: Wanted) -> _Sent:
        """What was sent of a sequence that is in this slot now; nothing if another one was there."""
        sent = self._sent.get(one.slot)
        if sent is None or sent.sequence_id != one.sequence_id:
            sent = self._sent[one.slot] = _Sent(one.sequence_id)
        return sent
