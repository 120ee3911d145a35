"""What `tandem bench --preset` can be told."""

from dataclasses import dataclass

from tandem.cli.bench.config import NOTHING, TRANSFORMERS
from tandem.cli.up_config import SPLIT
from tandem.core.config import option
from tandem.core.errors import ConfigError
from tandem.verifier.config import IN_PROCESS, NO_DRAFTER, VerifierConfig

DRAFTERS = (SPLIT, IN_PROCESS, NO_DRAFTER)
AS_DTYPE, FP8 = "dtype", "fp8"
WEIGHTS = (AS_DTYPE, FP8)
SWITCH = {"false": False, "true": True}


@dataclass(frozen=True)
class PresetConfig:
    """Settings of one benchmark of a shape.

    Raises:
        ConfigError: settings that measure nothing.
    """

    preset: str = option(
        "",
        help="measures this shape: gemma-4-31b and so on, or a folder with target/config.json and drafter/config.json",
    )
    random_weights: bool = option(False, help="draws weights on the device; --preset has no others")
    acceptance_length: float = option(4.0, help="tokens a round, whatever the drafts are")
    drafters: str = option(",".join(DRAFTERS), help="where drafts are made, in turn")
    weights: str = option(AS_DTYPE, help=f"formats of the target's projections ({AS_DTYPE},{FP8})")
    adaptive_k: str = option("false", help="always K drafts, or as many as pay (false,true)")
    batches: str = option("1,8,32", help="streams at a time, in turn")
    prompt_tokens: str = option("512", help="lengths of prompts; all but the first at batch 1 only")
    device: str = option("cuda", help="device of both networks", choices=["cpu", "cuda"])
    tensor_parallel: int = option(1, help="processes that the target is shared by, as for 'tandem verifier'")
    dtype: str = option("bfloat16", help="number format", choices=["float32", "bfloat16"])
    max_step_tokens: int = option(VerifierConfig.max_step_tokens, help="as for 'tandem verifier'")
    profile: bool = option(True, help="on CUDA, further texts show what a round is made of")
    plot: str = option("", help="PNG file for a plot of the figures; empty: none")
    # The following are options of every benchmark, described with the others; these are their defaults here.
    temperature: float = option(0.0, help="of the texts")
    num_speculative_tokens: int = option(7, help="draft tokens a round (K)")
    max_tokens: int = option(256, help="tokens of each text")
    runs: int = option(3, help="texts of each kind; the table shows medians")
    threads: int = option(0, help="threads of torch")
    compare: str = option(NOTHING, help="measures transformers on the same shape", choices=[TRANSFORMERS, NOTHING])
    exchange_directory: str = option(VerifierConfig.exchange_directory, help="memory-backed folder")
    json: str = option("", help="file for every figure; empty: none")

    def __post_init__(self) -> None:
        """Refuses what could not be measured."""
        _require(bool(self.preset), "--preset is required")
        _require(self.random_weights, "--preset needs --random-weights: a shape has no weights of its own")
        for name in ("num_speculative_tokens", "runs", "max_step_tokens", "tensor_parallel"):
            _require(getattr(self, name) >= 1, f"--{name.replace('_', '-')} must be at least 1")
        _require(self.max_tokens >= 2, "--max-tokens must be at least 2: the first one is the prompt's")
        _require(self.temperature >= 0, "--temperature cannot be negative")
        _require(
            1 <= self.acceptance_length <= self.num_speculative_tokens + 1,
            "--acceptance-length must be between 1 and --num-speculative-tokens + 1",
        )
        for listed in (self.drafter_list, self.weights_list, self.adaptive_list, self.batch_list, self.prompt_list):
            assert listed, "each of them refuses what is no list"

    @property
    def drafter_list(self) -> tuple[str, ...]:
        """Where drafts are made."""
        return _listed("--drafters", self.drafters, DRAFTERS)

    @property
    def weights_list(self) -> tuple[str, ...]:
        """Formats of the target's projections."""
        return _listed("--weights", self.weights, WEIGHTS)

    @property
    def adaptive_list(self) -> tuple[bool, ...]:
        """Whether K adapts."""
        return tuple(SWITCH[word] for word in _listed("--adaptive-k", self.adaptive_k, tuple(SWITCH)))

    @property
    def batch_list(self) -> tuple[int, ...]:
        """Streams at a time."""
        return _numbers("--batches", self.batches)

    @property
    def prompt_list(self) -> tuple[int, ...]:
        """Tokens of prompts."""
        return _numbers("--prompt-tokens", self.prompt_tokens)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _listed(name: str, text: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(text.split(","))
    _require(set(words) <= set(choices), f"{name} must list some of {', '.join(choices)}, with commas between")
    return words


def _numbers(name: str, text: str) -> tuple[int, ...]:
    words = text.split(",")
    _require(
        all(word.isdecimal() and int(word) >= 1 for word in words), f"{name} must list numbers from 1 on, such as 1,8"
    )
    return tuple(map(int, words))
