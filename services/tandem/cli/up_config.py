"""What `tandem up` can be told besides the settings of the services."""

from dataclasses import dataclass

from tandem.core.config import option
from tandem.core.errors import ConfigError
from tandem.demo import DEMO_DRAFTER, DEMO_TARGET
from tandem.verifier.config import IN_PROCESS, NO_DRAFTER

SPLIT = "split"


@dataclass(frozen=True)
class UpConfig:
    """Which models to serve, and where drafts are made.

    Raises:
        ConfigError: a target of one's own without a word on its drafter.
    """

    target: str = option(
        str(DEMO_TARGET), help="the target's checkpoint: a folder, or ORGANISATION/NAME@COMMIT on the hub"
    )
    draft_model: str = option("", help="the drafter's checkpoint, likewise; empty: the demo pair's, for its target")
    drafter: str = option(
        SPLIT,
        help=f"drafts come from a process of their own ({SPLIT}), from the verifier ({IN_PROCESS}), or not at all",
        choices=[SPLIT, IN_PROCESS, NO_DRAFTER],
    )
    drafter_device: str = option("", help=f"device of a drafter in a process of its own ({SPLIT}); empty: the target's")
    lookup: bool = option(False, help="one more drafter, which looks up what followed before; it needs no checkpoint")
    gateway: bool = option(
        True, help="false: verifier and drafters alone, for gateways elsewhere, which --listen is for"
    )

    def __post_init__(self) -> None:
        """Refuses to pair somebody's target with the demo drafter."""
        if self.drafter != NO_DRAFTER and not self.draft_model and self.target != str(DEMO_TARGET):
            raise ConfigError(f"--draft-model is required with --target, or --drafter {NO_DRAFTER} to do without")

    @property
    def draft_model_in_force(self) -> str:
        """The drafter's checkpoint; empty without a drafter."""
        return "" if self.drafter == NO_DRAFTER else self.draft_model or str(DEMO_DRAFTER)
