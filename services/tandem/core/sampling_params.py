"""What a request asks of sampling and stopping, with every default resolved."""

from dataclasses import dataclass, field
from math import isfinite

from tandem.core.errors import InvalidRequest

MAX_TOP_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
MAX_STOP_TOKEN_IDS = 64
SEED_RANGE = 1 << 63


def _require(condition: bool, name: str, description: str) -> None:
    if not condition:
        raise InvalidRequest(name, description)


@dataclass(frozen=True)
class SamplingParams:
    """How a token is chosen from the target's logits. Order: penalties, bias, temperature, top-k, top-p, min-p.

    Raises:
        InvalidRequest: a value is out of range.
    """

    temperature: float = 1.0  # 0 = greedy
    top_k: int = 0  # 0 = all
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0  # 0 <= seed < 2**63
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, added to its logit)
    suppress_token_ids: tuple[int, ...] = ()  # never chosen: the checkpoint's will, not the request's

    def __post_init__(self) -> None:
        """Refuses what no engine could serve; NaN fails every comparison below."""
        path = "spec.sampling"
        _require(0.0 <= self.temperature <= 100.0, f"{path}.temperature", "must be between 0 and 100")
        _require(self.top_k >= 0, f"{path}.top_k", "must be 0 (all tokens) or positive")
        _require(0.0 < self.top_p <= 1.0, f"{path}.top_p", "must be above 0 and at most 1")
        _require(0.0 <= self.min_p <= 1.0, f"{path}.min_p", "must be between 0 and 1")
        _require(0 <= self.seed < SEED_RANGE, f"{path}.seed", "must be at least 0 and below 2^63")
        _require(0.01 <= self.repetition_penalty <= 100.0, f"{path}.repetition_penalty", "must be in 0.01..100")
        _require(-2.0 <= self.presence_penalty <= 2.0, f"{path}.presence_penalty", "must be between -2 and 2")
        _require(-2.0 <= self.frequency_penalty <= 2.0, f"{path}.frequency_penalty", "must be between -2 and 2")
        _require(len(self.logit_bias) <= MAX_LOGIT_BIAS, f"{path}.logit_bias", f"at most {MAX_LOGIT_BIAS} entries")
        for token_id, bias in self.logit_bias:
            _require(token_id >= 0, f"{path}.logit_bias", "token ids cannot be negative")
            _require(isfinite(bias) and abs(bias) <= 100.0, f"{path}.logit_bias", "must be between -100 and 100")

    @property
    def is_greedy(self) -> bool:
        """Whether the choice is a plain arg-max."""
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        """Whether a row's logits depend on the tokens before it other than through the model."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


@dataclass(frozen=True)
class StoppingParams:
    """When a sequence ends. Stop strings are the gateway's affair: the engine knows token ids only.

    Raises:
        InvalidRequest: a value is out of range.
    """

    max_tokens: int
    min_tokens: int = 0  # until then no stop token can be chosen
    stop_token_ids: frozenset[int] = field(default_factory=frozenset)  # EOS set and the request's own

    def __post_init__(self) -> None:
        """Refuses contradictory limits."""
        path = "spec.stopping"
        _require(self.max_tokens >= 1, f"{path}.max_tokens", "must be at least 1")
        _require(0 <= self.min_tokens <= self.max_tokens, f"{path}.min_tokens", "must be between 0 and max_tokens")
        _require(
            len(self.stop_token_ids) <= MAX_STOP_TOKEN_IDS,
            f"{path}.stop_token_ids",
            f"at most {MAX_STOP_TOKEN_IDS} ids",
        )


@dataclass(frozen=True)
class OutputParams:
    """What a request wants to know of each token besides its id.

    Raises:
        InvalidRequest: more alternatives than are ever given.
    """

    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: bool = False

    def __post_init__(self) -> None:
        """Bounds the work that logprobs may cause."""
        _require(
            0 <= self.top_logprobs <= MAX_TOP_LOGPROBS, "spec.output.top_logprobs", f"must be 0..{MAX_TOP_LOGPROBS}"
        )
