"""What `tandem bench --preset` can be told."""

from dataclasses import dataclass

from tandem.cli.bench.config import NOTHING, TRANSFORMERS
from tandem.cli.up_config import SPLIT
from tandem.core.config import option
from tandem.core.errors import ConfigError
from tandem.verifier.config import IN_PROCESS, NO_DRAFTER, VerifierConfig

DRAFTERS = (SPLIT, IN_PROCESS, NO_DRAFTER)


@dataclass(frozen=True)
class PresetConfig:
    """Settings of one benchmark of a shape.

    Raises:
        ConfigError: settings that measure nothing.
    """

    preset: str = option("", help="measures networks of a shape: gemma-4-31b and so on, or a folder with two of them")
    random_weights: bool = option(False, help="with --preset, which has no others: weights are drawn on the device")
    acceptance_length: float = option(4.0, help="with --preset: tokens a round, whatever the drafts are")
    drafters: str = option(",".join(DRAFTERS), help="with --preset: where drafts are made, in turn")
    batches: str = option("1,8,32", help="with --preset: streams at a time, in turn")
    prompt_tokens: str = option("512", help="with --preset: lengths of prompts; all but the first at batch 1 only")
    temperature: float = option(0.0, help="of the texts")
    device: str = option("cuda", help="with --preset: device of both networks", choices=["cpu", "cuda"])
    dtype: str = option("bfloat16", help="with --preset: number format", choices=["float32", "bfloat16"])
    adaptive_k: bool = option(False, help="with --preset: drafts only as much as pays, at most K")
    max_step_tokens: int = option(VerifierConfig.max_step_tokens, help="with --preset: as for 'tandem verifier'")
    profile: bool = option(True, help="with --preset on CUDA: one more text of each kind shows what a round is made of")
    plot: str = option("", help="with --preset: PNG file for a plot of the figures; empty: none")
    num_speculative_tokens: int = option(7, help="draft tokens a round (K)")
    max_tokens: int = option(256, help="tokens of each text")
    runs: int = option(3, help="texts of each kind; the table shows medians")
    threads: int = option(0, help="threads of torch")
    compare: str = option(NOTHING, help="measures transformers on the same shape", choices=[TRANSFORMERS, NOTHING])
    exchange_directory: str = option(VerifierConfig.exchange_directory, help="memory-backed folder")
    json: str = option("", help="file for every figure; empty: none")

    def __post_init__(self) -> None:
        """Refuses what could not be measured."""
        if not self.preset:
            raise ConfigError("--preset is required")
        if not self.random_weights:
            raise ConfigError("--preset needs --random-weights: it names a shape, which has no weights of its own")
        for name in ("num_speculative_tokens", "runs", "max_step_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")
        if self.max_tokens < 2:
            raise ConfigError("--max-tokens must be at least 2: the first one is the prompt's")
        if not 1 <= self.acceptance_length <= self.num_speculative_tokens + 1:
            raise ConfigError("--acceptance-length must be between 1 and --num-speculative-tokens + 1")
        unknown = set(self.drafter_list) - set(DRAFTERS)
        if unknown or not self.drafter_list:
            raise ConfigError(f"--drafters must list some of {', '.join(DRAFTERS)}")
        assert self.batch_list and self.prompt_list

    @property
    def drafter_list(self) -> tuple[str, ...]:
        """Where drafts are made."""
        return tuple(filter(None, self.drafters.split(",")))

    @property
    def batch_list(self) -> tuple[int, ...]:
        """Streams at a time."""
        return _numbers("--batches", self.batches)

    @property
    def prompt_list(self) -> tuple[int, ...]:
        """Tokens of prompts."""
        return _numbers("--prompt-tokens", self.prompt_tokens)


def _numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise ConfigError(f"{name} must list numbers from 1 on, such as 1,8")
    return numbers
