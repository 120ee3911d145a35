"""Plain decoding: nobody drafts."""

from collections.abc import Sequence

from tandem.engine.draft_source import DrafterInfo, Drafts, Wanted


class NoDrafter:
    """A `DraftSource` without a drafter."""

    info: DrafterInfo | None = None

    def begin(self, wanted: Sequence[Wanted]) -> bool:
        """Nobody can draft."""
        return False

    def collect(self) -> Drafts:
        """Nothing was begun."""
        raise AssertionError("begin returned False")

    def close(self) -> None:
        """Nothing to let go of."""
