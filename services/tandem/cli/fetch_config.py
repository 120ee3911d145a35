"""What `tandem fetch` can be told."""

from dataclasses import dataclass

from tandem.core.config import option
from tandem.core.errors import ConfigError


@dataclass(frozen=True)
class FetchConfig:
    """Which checkpoints to bring, each named as the services name it.

    Raises:
        ConfigError: none at all.
    """

    target: str = option("", help="the target's checkpoint, ORGANISATION/NAME@COMMIT on the hub; empty: none")
    draft_model: str = option("", help="the drafter's checkpoint, likewise")
    tokenizer: str = option("", help="a checkpoint of which a gateway needs tokenizer and chat template alone")

    def __post_init__(self) -> None:
        """Refuses to do nothing."""
        if not (self.target or self.draft_model or self.tokenizer):
            raise ConfigError("--target, --draft-model or --tokenizer is required")
