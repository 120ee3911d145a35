"""What a drafter can be told."""

from dataclasses import dataclass

from tandem.core.config import option
from tandem.rpc.addresses import default_socket


@dataclass(frozen=True)
class DrafterConfig:
    """Settings of one drafter process."""

    draft_model: str = option(help="folder of the drafter's checkpoint")
    target: str = option(help="folder of the target's checkpoint; only its config.json is read, to see that both fit")
    listen: str = option(default_socket("drafter"), help="unix:/PATH to serve on")
    num_speculative_tokens: int = option(7, help="most draft tokens a round")
    threads: int = option(1, help="threads of torch on the CPU; 0: one a core")
    drain_seconds: float = option(2.0, help="time for the running round when told to stop")
