"""Where the engine gets draft tokens, whoever makes them: `MtpDrafter` in this process, or another process."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Fallback(enum.Enum):
    """Why a round has no drafts, or not all that were asked for."""

    LATE = "late"  # no answer in time
    LOST = "lost"  # the drafter went away
    STALE = "stale"  # an answer to another round or another attachment
    INVALID = "invalid"  # wrong counts, or token ids out of range


@dataclass(frozen=True)
class DrafterInfo:
    """Who drafts, for people."""

    name: str
    num_speculative_tokens: int  # most tokens it drafts a round
    revision: str


@dataclass(frozen=True)
class Wanted:
    """A sequence that drafts are wanted for."""

    slot: int
    token_ids: Sequence[int]  # committed so far, prompt first; the last one has no KV yet. Not to be kept or changed
    num_tokens: int  # drafts wanted at most
    sequence_id: int  # who is in the slot: the same id means the same tokens, or more of them


@dataclass(frozen=True)
class Drafts:
    """The answer to one request for drafts."""

    token_ids: Sequence[
        Sequence[int]
    ]  # for each of the wanted, in that order; checked by the engine, not by the source
    fallback: Fallback | None = None


class DraftSource(Protocol):
    """Makes drafts from the engine's `DraftInputs`. Called by the engine's thread only, but for `info`."""

    @property
    def info(self) -> DrafterInfo | None:
        """The drafter attached now; None while there is none. Any thread may ask."""
        ...

    def begin(self, wanted: Sequence[Wanted]) -> bool:
        """Asks for drafts and returns once the request is on its way; False: nobody can draft now.

        Sequences are drafted for together: each may be given as many drafts as the one that wants most.
        """
        ...

    def collect(self) -> Drafts:
        """The answer to the last `begin` that returned True. Waits, but never longer than the source's timeout."""
        ...

    def close(self) -> None:
        """Lets go of the drafter."""
        ...
