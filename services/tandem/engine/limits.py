"""What an engine is built for."""

from dataclasses import dataclass

from tandem.exchange.spec import ExchangeSpec, SharedLayer
from tandem.kv_cache.kv_allocator import num_blocks_for
from tandem.models.gemma4.config import Gemma4TextConfig

ROUNDS_AHEAD = 2  # that may be under way at a time


@dataclass(frozen=True)
class EngineLimits:
    """Bounds of a step, of the queue and of the KV cache."""

    max_sequences: int  # that run at a time; each has a slot
    max_step_tokens: int  # rows of one forward pass
    max_draft_tokens: int  # K
    max_queue: int  # sequences that wait beyond those that run
    max_context: int  # most tokens of one sequence
    kv_tokens: int  # that the KV cache holds
    block_size: int  # tokens of a KV block
    prefix_cache: bool = True  # whether sequences that begin alike share KV

    def __post_init__(self) -> None:
        """Every running sequence must be able to advance in every step."""
        assert self.max_sequences >= 1
        assert self.max_step_tokens >= self.max_sequences

    @property
    def rows_ahead(self) -> int:
        """Rows of one sequence that may be under way before the host knows what came of the first of them."""
        return ROUNDS_AHEAD * (self.max_draft_tokens + 1)

    @property
    def spare_slot(self) -> int:
        """The slot that belongs to nobody: rows that only fill a batch up are those of it."""
        return self.max_sequences

    def num_blocks(self, config: Gemma4TextConfig) -> dict[str, int]:
        """KV blocks of each group that sequences may hold."""
        num_rows = self.max_step_tokens + self.max_sequences * self.rows_ahead
        return num_blocks_for(config.kv_groups, self.kv_tokens, self.block_size, self.max_sequences, num_rows)

    def stored_blocks(self, config: Gemma4TextConfig) -> dict[str, int]:
        """KV blocks of each group that there is memory for: the last one is spare, and rows without one write there."""
        return {name: count + 1 for name, count in self.num_blocks(config).items()}

    def spare_blocks(self, config: Gemma4TextConfig) -> dict[str, int]:
        """The block of each group that nobody ever holds."""
        return self.num_blocks(config)

    def exchange_spec(self, config: Gemma4TextConfig, dtype: str, kv_dtype: str = "") -> ExchangeSpec:
        """What a drafter of this engine is shown, but for the scales of its KV. See `ExchangeSpec` for the formats."""
        num_blocks = self.stored_blocks(config)
        return ExchangeSpec(
            dtype=dtype,
            num_slots=self.max_sequences + 1,
            max_draft_tokens=self.max_draft_tokens,
            max_blocks=-(-self.max_context // self.block_size),
            block_size=self.block_size,
            vocabulary_size=config.vocab_size,
            hidden_size=config.hidden_size,
            layers=tuple(
                SharedLayer(group.name, num_blocks[group.name], group.num_kv_heads, group.head_dim, kv_dtype)
                for group in config.kv_groups
            ),
        )
