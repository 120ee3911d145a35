"""What a drafter can be told."""

import re
from dataclasses import dataclass

from tandem.core.config import option
from tandem.core.draft_position import AT_P, DRAFT_POSITIONS
from tandem.core.errors import ConfigError
from tandem.rpc.addresses import UNIX_PREFIX, default_socket

MAX_SPECULATIVE_TOKENS = 64
_DEVICE = re.compile(r"cpu|cuda(:\d{1,2})?")


@dataclass(frozen=True)
class DrafterConfig:
    """Settings of one drafter process.

    Raises:
        ConfigError: a value that nothing could be served under.
    """

    draft_model: str = option(help="the drafter's checkpoint: a folder, or ORGANISATION/NAME@COMMIT on the hub")
    target: str = option(help="the target's checkpoint; only its config.json is read, to see that both fit")
    listen: str = option(default_socket("drafter"), help="unix:/PATH to serve on")
    num_speculative_tokens: int | None = option(
        None, help="most draft tokens a round; none: as many as the drafter's checkpoint says, or 4"
    )
    draft_position: str = option(
        AT_P,
        help="position of the drafter's queries: the last token's (p) or the one before (p-1)",
        choices=DRAFT_POSITIONS,
    )
    device: str = option("cpu", help="device of the drafter: cpu, cuda, cuda:1, ...")
    threads: int = option(1, help="threads of torch on the CPU; 0: one a core")
    health_listen: str = option("", help="HOST:PORT that tells health alone, in plain text, for probes; empty: none")
    metrics_listen: str = option("", help="HOST:PORT that shows metrics to Prometheus; empty: none")
    drain_seconds: float = option(2.0, help="time for the running round when told to stop")

    def __post_init__(self) -> None:
        """Refuses what could not work."""
        if not self.listen.startswith(UNIX_PREFIX):
            raise ConfigError(f"--listen must be {UNIX_PREFIX}/PATH: the drafter shares the verifier's machine")
        if self.num_speculative_tokens is not None and not 1 <= self.num_speculative_tokens <= MAX_SPECULATIVE_TOKENS:
            raise ConfigError(f"--num-speculative-tokens must be between 1 and {MAX_SPECULATIVE_TOKENS}")
        if not _DEVICE.fullmatch(self.device):
            raise ConfigError(f"--device must be cpu, cuda or cuda:NUMBER, not {self.device!r}")
        if self.threads < 0:
            raise ConfigError("--threads cannot be negative")
