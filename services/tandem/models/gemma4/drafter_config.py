"""The shape of an MTP drafter, read from its config.json.

The field names and defaults are those of transformers' `Gemma4AssistantConfig` and `Gemma4UnifiedAssistantConfig`.
"""

from dataclasses import dataclass
from pathlib import Path

from tandem.core.errors import CheckpointError
from tandem.models.gemma4.config import Gemma4TextConfig, drafter_text_config, read_fields
from tandem.models.gemma4.fields import Fields

_BACKBONE_SIZES = {"gemma4_assistant": 1536, "gemma4_unified_assistant": 3840}  # by model type, where none is given


@dataclass(frozen=True)
class CentroidConfig:
    """A head that scores the tokens of a few clusters only."""

    num_centroids: int  # divides the vocabulary
    top_k: int  # clusters whose tokens are scored


@dataclass(frozen=True)
class Gemma4DrafterConfig:
    """Shape of an MTP drafter, whose layers read the target's KV."""

    text: Gemma4TextConfig
    backbone_hidden_size: int  # hidden size of the target
    centroids: CentroidConfig | None  # None: every token is scored


def read_drafter_config(path: Path) -> Gemma4DrafterConfig:
    """The MTP drafter that a checkpoint folder holds.

    Raises:
        CheckpointError: there is none, or it has a feature that is not served.
    """
    return drafter_config(read_fields(path))


def drafter_config(fields: Fields) -> Gemma4DrafterConfig:
    """The MTP drafter that a config.json describes. Raises as `read_drafter_config` does."""
    model_type = fields.text("model_type")
    if model_type not in _BACKBONE_SIZES:
        raise fields.error("model_type", f"of a drafter must be {' or '.join(_BACKBONE_SIZES)}")
    text = drafter_text_config(fields)
    return Gemma4DrafterConfig(
        text=text,
        backbone_hidden_size=fields.integer("backbone_hidden_size", _BACKBONE_SIZES[model_type]),
        centroids=_centroid_config(fields, text.vocab_size),
    )


def _centroid_config(fields: Fields, vocab_size: int) -> CentroidConfig | None:
    """Checkpoints with a dense head may carry the two sizes too, where they mean nothing."""
    if not fields.boolean("use_ordered_embeddings", False):
        return None
    num_centroids = fields.integer("num_centroids", 2048)
    top_k = fields.integer("centroid_intermediate_top_k", 32)
    if vocab_size % num_centroids:
        raise CheckpointError(f"{fields.source}: num_centroids = {num_centroids} must divide vocab_size = {vocab_size}")
    if top_k > num_centroids:
        raise CheckpointError(
            f"{fields.source}: centroid_intermediate_top_k = {top_k} must be at most num_centroids = {num_centroids}"
        )
    return CentroidConfig(num_centroids, top_k)
