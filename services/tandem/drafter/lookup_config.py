"""What a lookup drafter can be told."""

from dataclasses import dataclass

from tandem.core.config import option
from tandem.core.errors import ConfigError
from tandem.drafter.config import MAX_SPECULATIVE_TOKENS
from tandem.rpc.addresses import UNIX_PREFIX, default_socket


@dataclass(frozen=True)
class LookupConfig:
    """Settings of one lookup drafter.

    Raises:
        ConfigError: a value that nothing could be served under.
    """

    listen: str = option(default_socket("lookup"), help="unix:/PATH to serve on")
    num_speculative_tokens: int = option(7, help="most draft tokens a round")
    memory_tokens: int = option(524_288, help="tokens kept of all sequences together, each of up to 500 bytes")
    metrics_listen: str = option("", help="HOST:PORT that shows metrics to Prometheus; empty: none")
    drain_seconds: float = option(2.0, help="time for the running round when told to stop")

    def __post_init__(self) -> None:
        """Refuses what could not work."""
        if not self.listen.startswith(UNIX_PREFIX):
            raise ConfigError(f"--listen must be {UNIX_PREFIX}/PATH: the drafter is trusted by its socket")
        if not 1 <= self.num_speculative_tokens <= MAX_SPECULATIVE_TOKENS:
            raise ConfigError(f"--num-speculative-tokens must be between 1 and {MAX_SPECULATIVE_TOKENS}")
        if self.memory_tokens < 1:
            raise ConfigError("--memory-tokens must be at least 1")
