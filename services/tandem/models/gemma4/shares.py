"""What each of several ranks holds of a layer.

A rank has some KV heads with all query heads that read them. Where there are fewer KV heads than ranks, a head is held
by several of them, each with some of its query heads. Of a feed-forward, and of each expert's, it has some columns of
gate and up, and those rows of down. All else is small, or a table that is read a row at a time: every rank has it.

The leader also keeps all KV heads of the layers that a drafter reads, so that the drafter reads one memory, as it does
where the target is not shared. For Gemma 4 31B in bfloat16 that is 24 KiB a token instead of 12 at two ranks, beside
428 KiB of the other layers, and no byte more in the exchange.
"""

from dataclasses import dataclass

from tandem.core.errors import ConfigError
from tandem.models.gemma4.config import GROUPED_ALIGNMENT, Gemma4TextConfig
from tandem.models.ranks import Ranks


@dataclass(frozen=True)
class HeadShare:
    """Heads of a layer that one rank computes with."""

    queries: range
    kv: range  # that those queries read


def head_share(num_heads: int, num_kv_heads: int, ranks: Ranks) -> HeadShare:
    """The heads of a rank, in a layer of so many."""
    group = num_heads // num_kv_heads
    if num_kv_heads >= ranks.size:
        kv = ranks.share(num_kv_heads)
        return HeadShare(range(kv.start * group, kv.stop * group), kv)
    queries = ranks.share(num_heads)
    return HeadShare(queries, range(queries.start // group, (queries.stop - 1) // group + 1))


def check_shares(config: Gemma4TextConfig, num_ranks: int) -> None:
    """Raises ConfigError unless each of so many ranks can have its share of every layer."""
    num_heads = config.num_attention_heads
    for layer_type, attention in config.attention.items():
        num_kv_heads = attention.num_kv_heads
        if num_kv_heads < num_ranks and (num_ranks % num_kv_heads or num_heads % num_ranks):
            raise _refusal(
                num_ranks, f"it has {num_heads} query heads and {num_kv_heads} KV heads in a layer of {layer_type}"
            )
    widths = {config.intermediate_size_of(layer_id) for layer_id in range(config.num_hidden_layers)}
    for width in sorted(widths):
        if width % num_ranks:
            raise _refusal(num_ranks, f"its feed-forward has {width} columns")
    if config.experts and config.experts.intermediate_size % (num_ranks * GROUPED_ALIGNMENT):
        columns = config.experts.intermediate_size
        raise _refusal(num_ranks, f"an expert has {columns} columns, and each rank needs a multiple of 8")


def _refusal(num_ranks: int, reason: str) -> ConfigError:
    return ConfigError(f"--tensor-parallel {num_ranks}: the target cannot be shared by so many ranks: {reason}")
