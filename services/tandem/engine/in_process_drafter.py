"""The drafter inside the verifier: what the split into two processes is measured against."""

from collections.abc import Sequence

from tandem.engine.draft_source import DrafterInfo, Drafts
from tandem.engine.mtp_drafter import MtpDrafter


class InProcessDrafter:
    """A `DraftSource` that computes on the engine's own thread."""

    def __init__(self, drafter: MtpDrafter, info: DrafterInfo) -> None:
        """Drafts at most `info.num_speculative_tokens` a round."""
        self._drafter = drafter
        self._info = info
        self._asked: tuple[Sequence[int], int] | None = None

    @property
    def info(self) -> DrafterInfo:
        """The drafter, which never goes away."""
        return self._info

    def begin(self, slots: Sequence[int], num_tokens: int) -> bool:
        """Notes what is wanted."""
        self._asked = slots, min(num_tokens, self._info.num_speculative_tokens)
        return True

    def collect(self) -> Drafts:
        """Computes it."""
        assert self._asked is not None, "begin comes first"
        slots, num_tokens = self._asked
        self._asked = None
        return Drafts(self._drafter.propose(slots, num_tokens))

    def close(self) -> None:
        """Nothing to let go of."""
