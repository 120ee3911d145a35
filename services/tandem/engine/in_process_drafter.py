"""The drafter inside the verifier: what the split into two processes is measured against."""

from collections.abc import Sequence

from tandem.engine.draft_source import DrafterInfo, Drafts, Wanted
from tandem.engine.mtp_drafter import MtpDrafter


class InProcessDrafter:
    """A `DraftSource` that computes on the engine's own thread."""

    def __init__(self, drafter: MtpDrafter, info: DrafterInfo) -> None:
        """Drafts at most `info.num_speculative_tokens` a round."""
        self._drafter = drafter
        self._info = info
        self._wanted: Sequence[Wanted] | None = None

    @property
    def info(self) -> DrafterInfo:
        """The drafter, which never goes away."""
        return self._info

    def begin(self, wanted: Sequence[Wanted]) -> bool:
        """Notes what is wanted."""
        self._wanted = wanted
        return True

    def collect(self) -> Drafts:
        """Computes it."""
        assert self._wanted, "begin comes first"
        slots = [one.slot for one in self._wanted]
        most = max(one.num_tokens for one in self._wanted)
        self._wanted = None
        return Drafts(self._drafter.propose(slots, min(most, self._info.num_speculative_tokens)))

    def close(self) -> None:
        """Nothing to let go of."""
