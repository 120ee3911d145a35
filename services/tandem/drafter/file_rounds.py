"""Rounds over an exchange in files: read, drafted and written before they are answered."""

from collections.abc import Sequence

from tandem.engine.mtp_drafter import MtpDrafter
from tandem.exchange.attached_exchange import AttachedExchange


class FileRounds:
    """`Rounds` of an `AttachedExchange`."""

    def __init__(self, exchange: AttachedExchange, drafter: MtpDrafter) -> None:
        """Takes both; `drafter` reads the inputs of `exchange`."""
        self._exchange = exchange
        self._drafter = drafter

    def draft(self, round_number: int, slots: Sequence[int], num_tokens: int) -> list[int]:
        """Writes a round's drafts; how many each slot has, none where its inputs are unusable."""
        drafts = self._drafter.propose(slots, num_tokens)
        self._exchange.write_drafts(
            round_number, {slot: token_ids for slot, token_ids in zip(slots, drafts, strict=True) if token_ids}
        )
        return [len(token_ids) for token_ids in drafts]

    def release(self) -> None:
        """Nothing here waits for the verifier."""

    def close(self) -> None:
        """Closes the exchange."""
        self._exchange.close()
