"""Which trace the sequence in each slot belongs to, for drafters: told once, with the next request."""

from tandem.drafter.v1 import drafter_service_pb2 as pb


class SlotTraces:
    """What a drafter knows, and what is news to it. Used by the engine's thread only."""

    def __init__(self) -> None:
        """Nothing is traced."""
        self._traceparents: dict[int, str] = {}  # by slot; empty: not traced
        self._news: set[int] = set()
        self._generation = 0

    def enter(self, slot: int, traceparent: str) -> None:
        """A sequence has taken a slot; an empty text if nobody records it."""
        if traceparent != self._traceparents.get(slot, ""):
            self._traceparents[slot] = traceparent
            self._news.add(slot)

    def news(self, generation: int) -> list[pb.SlotTrace]:
        """What the drafter of this attachment was not told yet."""
        if generation != self._generation:
            self._generation = generation
            self._news = {slot for slot, traceparent in self._traceparents.items() if traceparent}
        news, self._news = self._news, set()
        return [pb.SlotTrace(slot=slot, traceparent=self._traceparents[slot]) for slot in sorted(news)]
