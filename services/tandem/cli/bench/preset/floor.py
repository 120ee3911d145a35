"""What a round must read at least: every weight once, and the keys and values of its texts. Where several ranks share
the target, what the leader reads, which has the head besides.

Of experts only those count that rows chose: with random routing, `r` rows that choose `k` of `E` experts each touch
E * (1 - (1 - k / E)^r) of a layer. Tables that rows are merely looked up in do not count, nor do rows written.
"""

import re
from dataclasses import dataclass

from tandem.cli.bench.preset.config import FP8, PresetConfig
from tandem.cli.bench.preset.kind import Kind, Way
from tandem.cli.bench.preset.shape import Shape
from tandem.exchange.draft_inputs import DTYPES
from tandem.models.gemma4.config import Gemma4TextConfig, target_config
from tandem.models.gemma4.drafter import Gemma4MtpDrafter
from tandem.models.gemma4.drafter_config import Gemma4DrafterConfig, drafter_config
from tandem.models.gemma4.fields import Fields
from tandem.models.gemma4.parameters import Destinations
from tandem.models.gemma4.shares import head_share
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.ranks import ALONE, Ranks
from tandem.verifier.config import NO_DRAFTER

_EXPERTS = re.compile(r"\.experts\.")
_LOOKED_UP = re.compile(r"embed_tokens_per_layer\.|token_ordering$")
_PROJECTION = re.compile(r"\.(self_attn|mlp)\.\w+_proj\.weight$|\.experts\.")  # what `--weights fp8` makes smaller
_DRAFT_TABLE = re.compile(r"embed_tokens\.weight$")


@dataclass(frozen=True)
class Floor:
    """Bytes that one round reads."""

    target_bytes: float  # weights
    experts_bytes: float  # of these, those of the experts touched
    draft_bytes: float  # weights of the drafter, once a draft
    kv_bytes: float  # of target and drafter

    @property
    def total_bytes(self) -> float:
        """All of it."""
        return self.target_bytes + self.draft_bytes + self.kv_bytes

    def milliseconds(self, read_bytes_per_second: float) -> float:
        """The least time of the round."""
        return 1000 * self.total_bytes / read_bytes_per_second


class Floors:
    """The floors of one shape."""

    def __init__(self, shape: Shape, config: PresetConfig) -> None:
        """Builds both networks without memory, for the sizes of their weights."""
        dtype = DTYPES[config.dtype]
        self._config, self._item_bytes = config, dtype.itemsize
        self._target_config = target_config(Fields("target", shape.target))
        self._drafter_config = drafter_config(Fields("drafter", shape.drafter))
        self._ranks = Ranks(size=config.tensor_parallel)
        self._target = _num_weights(Gemma4Target(self._target_config, dtype, "meta", ranks=self._ranks).destinations())
        self._drafter = _num_weights(Gemma4MtpDrafter(self._drafter_config, None, dtype, "meta").destinations())

    def of(self, way: Way, kind: Kind) -> Floor:
        """The floor of a round in the middle of a text, with all K drafts wherever there are any."""
        k = 0 if way.drafter == NO_DRAFTER else self._config.num_speculative_tokens
        experts = self._experts_bytes(way, kind.batch * (k + 1))
        target = sum(
            number * self._bytes_each(name, way) for name, number in self._target.items() if not _EXPERTS.search(name)
        )
        length = kind.prompt_tokens + kind.max_tokens // 2
        kv = _kv_numbers(self._target_config, length, self._ranks)
        kv += k * _kv_numbers(self._drafter_config.text, length)
        return Floor(
            target_bytes=target + experts,
            experts_bytes=experts,
            draft_bytes=k * self._item_bytes * _draft_weights(self._drafter, self._drafter_config),
            kv_bytes=float(kind.batch * kv * self._item_bytes),
        )

    def _experts_bytes(self, way: Way, num_rows: int) -> float:
        experts = self._target_config.experts
        if experts is None:
            return 0.0
        share = 1 - (1 - experts.top_k / experts.num_experts) ** num_rows
        names = filter(_EXPERTS.search, self._target)
        return share * sum(self._target[name] * self._bytes_each(name, way) for name in names)

    def _bytes_each(self, name: str, way: Way) -> int:
        return 1 if way.weights == FP8 and _PROJECTION.search(name) else self._item_bytes


def _num_weights(destinations: Destinations) -> dict[str, int]:
    """Numbers of each tensor that a step reads."""
    return {name: one.num_wanted for name, one in destinations if not _LOOKED_UP.search(name)}


def _draft_weights(weights: dict[str, int], config: Gemma4DrafterConfig) -> float:
    """Numbers that one draft reads: of the token table, what its head looks into."""
    share = config.centroids.top_k / config.centroids.num_centroids if config.centroids else 1.0
    return sum(number * (share if _DRAFT_TABLE.search(name) else 1.0) for name, number in weights.items())


def _kv_numbers(config: Gemma4TextConfig, length: int, ranks: Ranks = ALONE) -> int:
    """Keys and values that the rows of one text read in all layers, on this rank."""
    total = 0
    for layer_type in config.layer_types:
        attention = config.attention[layer_type]
        visible = length if attention.window is None else min(length, attention.window)
        heads = head_share(config.num_attention_heads, attention.num_kv_heads, ranks).kv
        total += 2 * len(heads) * attention.head_dim * visible
    return total
