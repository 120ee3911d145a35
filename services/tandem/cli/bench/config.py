"""What `tandem bench` can be told."""

from dataclasses import dataclass

from tandem.cli.up_config import SPLIT, UpConfig
from tandem.core.config import option
from tandem.core.errors import ConfigError
from tandem.demo import DEMO_TARGET
from tandem.verifier.config import VerifierConfig

TRANSFORMERS = "transformers"
NOTHING = "none"
SPEED = "speed"
# Each is measured on services of its own.
FEATURES = ("prefix-cache", "adaptive-k", "lookup", "structured-output", "centroids", "fp8", "telemetry", "http")


@dataclass(frozen=True)
class BenchConfig:
    """Settings of one benchmark.

    Raises:
        ConfigError: settings that measure nothing.
    """

    target: str = option(
        str(DEMO_TARGET), help="the target's checkpoint: a folder, or ORGANISATION/NAME@COMMIT on the hub"
    )
    draft_model: str = option("", help="the drafter's checkpoint, likewise; empty: the demo pair's, for its target")
    threads: int = option(0, help="threads of torch in the verifier and in transformers; 0: one a core but one")
    num_speculative_tokens: int = option(4, help="draft tokens a round (K); with --preset, 7 by default")
    max_tokens: int = option(128, help="tokens of each text; with --preset, 256 by default")
    batch: int = option(8, help="streams at a time of the larger batch; batch 1 runs the same prompts in turn")
    runs: int = option(3, help="runs of each throughput measurement; the table shows medians")
    prompts: str = option(
        "", help='JSON file with a list of {"text": ...}; empty: prompts that the demo pair never saw'
    )
    acceptance_prompts: int = option(40, help="texts of each acceptance measurement, 0 for none")
    temperature: float = option(
        0.8, help="of the sampled acceptance measurement; the greedy one is always made; with --preset, 0 by default"
    )
    seed: int = option(0, help="of the first sampled text; each further one has the next")
    first_token_requests: int = option(100, help="requests to the gateway, and as many to the verifier; 0 for none")
    compare: str = option(
        TRANSFORMERS,
        help="measures assisted generation on the same pair, or does not, as is the default with --preset",
        choices=[TRANSFORMERS, NOTHING],
    )
    exchange_directory: str = option(
        VerifierConfig.exchange_directory, help="memory-backed folder for what the drafter reads"
    )
    only: str = option("", help="measures one thing instead of all", choices=["", SPEED, *FEATURES])
    json: str = option("", help="file for every figure with its samples; empty: none")

    def __post_init__(self) -> None:
        """Refuses what could not be measured."""
        for name in ("num_speculative_tokens", "batch", "runs"):
            _require(getattr(self, name) >= 1, f"--{name.replace('_', '-')} must be at least 1")
        for name in ("threads", "acceptance_prompts", "first_token_requests", "seed"):
            _require(getattr(self, name) >= 0, f"--{name.replace('_', '-')} cannot be negative")
        _require(self.max_tokens >= 2, "--max-tokens must be at least 2: the first one is the prompt's")
        _require(self.temperature > 0, "--temperature must be above 0: greedy texts are measured anyway")
        self.up(SPLIT)

    def up(self, drafter: str, lookup: bool = False) -> UpConfig:
        """The pair to serve.

        Args:
            drafter: where drafts are made, as for `tandem up`.
            lookup: whether they are looked up too.
        """
        return UpConfig(target=self.target, draft_model=self.draft_model, drafter=drafter, lookup=lookup)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
