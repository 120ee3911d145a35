"""The MTP drafter's network: one draft token a step, from the target's own keys and values.

    e = target embedding of the last token * sqrt(backbone size)
    x = layers(pre_projection([e, h])), queries only, over the target's last sliding and last full KV
    logits = head(norm(x)), h' = post_projection(norm(x))

h is the target's hidden row after its final norm, later this network's own h'. Position and keys stay the same for all
steps of a round. Source: transformers' `Gemma4AssistantForCausalLM`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F

from tandem.attention.backends import backend_for
from tandem.attention.base import AttentionBackend, AttentionMetadata
from tandem.kv_cache.scales import UNSCALED, KvScales
from tandem.models.gemma4.centroid_head import CentroidHead
from tandem.models.gemma4.draft_head import DenseHead, DraftHead, DraftScores
from tandem.models.gemma4.drafter_config import Gemma4DrafterConfig
from tandem.models.gemma4.layers import DecoderLayer, LayerInputs, RmsNorm
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.parameters import Destinations
from tandem.models.gemma4.rotary import RotaryEmbedding


class Gemma4MtpDrafter:
    """Drafts from what the target shares; keeps nothing between steps."""

    def __init__(
        self,
        config: Gemma4DrafterConfig,
        target_embedding: torch.Tensor | None,  # [vocab_size, backbone]
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        backend: AttentionBackend | None = None,
    ) -> None:
        """Allocates; `destinations` says what to fill, and `arrange` must follow.

        Args:
            config: the shape.
            target_embedding: the target's table, used in place; None: `bind` will bring it.
            dtype: of weights and activations, and of the table.
            device: where they live.
            backend: plans steps and computes attention; the device's when absent. It must not pad steps.
        """
        device = torch.device(device)
        text, backbone = config.text, config.backbone_hidden_size
        self.config = config
        self.dtype = dtype
        self.backend = backend or backend_for(text.num_attention_heads, device, dtype, is_batch_invariant=False)
        self.bind(target_embedding)
        self._embed_scale = torch.tensor(backbone**0.5).to(device, dtype)  # rounded as the weights are
        self._pre_projection = Linear(2 * backbone, text.hidden_size, dtype, device)
        self._post_projection = Linear(text.hidden_size, backbone, dtype, device)
        self._head: DraftHead = (
            CentroidHead(config.centroids, text.hidden_size, text.vocab_size, dtype, device)
            if config.centroids
            else DenseHead(text.hidden_size, text.vocab_size, dtype, device)
        )
        self.kv_groups = text.kv_groups  # to plan steps for, named as the target's groups that they read
        self._layers = [
            DecoderLayer(text, layer_id, False, dtype, device) for layer_id in range(text.num_hidden_layers)
        ]
        self._norm = RmsNorm((text.hidden_size,), text.rms_norm_eps, dtype, device)
        self._following = [*(layer.input_norm for layer in self._layers[1:]), self._norm]  # the norm after each layer
        self._rotary = RotaryEmbedding(text.attention, dtype, device)
        self._embed_beside = _embed_beside_for(device)

    def bind(self, target_embedding: torch.Tensor | None) -> None:  # [vocab_size, backbone]
        """Looks tokens up in this table from now on; None lets go of the one it has."""
        shape = (self.config.text.vocab_size, self.config.backbone_hidden_size)
        assert target_embedding is None or (target_embedding.shape == shape and target_embedding.dtype == self.dtype)
        self.target_embedding = target_embedding

    def destinations(self) -> Destinations:
        """Every tensor that a checkpoint must have."""
        prefix = self.config.text.tensor_prefix
        yield from self._head.destinations(prefix)
        for layer in self._layers:
            yield from layer.destinations()
        yield f"{prefix}norm.weight", self._norm.destination()
        yield "pre_projection.weight", self._pre_projection.destination()
        yield "post_projection.weight", self._post_projection.destination()

    def arrange(self, folder: Path) -> None:
        """Makes the network ready once all destinations are filled.

        Raises:
            CheckpointError: what was read from `folder` contradicts itself.
        """
        self._head.arrange(folder)

    @torch.inference_mode()
    def inputs_of(self, metadata: AttentionMetadata) -> dict[str, LayerInputs]:
        """What the layers of each type share in all steps of a round, whose position stays."""
        assert metadata.num_rows == metadata.num_tokens, "a drafter's steps are not padded"
        return {
            layer_type: LayerInputs(cos, sin, metadata.slot_mapping[layer_type], metadata.plans[layer_type])
            for layer_type, (cos, sin) in self._rotary(metadata.positions).items()
        }

    @torch.inference_mode()
    def forward(
        self,
        token_ids: torch.Tensor,  # [B] int64, the last token of each sequence
        hidden: torch.Tensor,  # [B, backbone]
        inputs: Mapping[str, LayerInputs],  # from `inputs_of`
        kv: Mapping[str, torch.Tensor],  # group -> [num_slots, 2, num_kv_heads, head_dim] of the target
        kv_scales: Mapping[str, KvScales] | None = None,  # group -> what these are divided by; None: nothing is
    ) -> tuple[DraftScores, torch.Tensor]:  # .., [B, backbone]
        """One draft step: scores of the next token, and the hidden rows of the next step."""
        assert self.target_embedding is not None, "bind comes first"
        start = self._embed_beside(token_ids, self.target_embedding, self._embed_scale, hidden)
        rows = self._pre_projection(start)
        normed = self._layers[0].input_norm(rows)
        for layer, following, layer_type in zip(
            self._layers, self._following, self.config.text.layer_types, strict=True
        ):
            scales = kv_scales[layer_type] if kv_scales else UNSCALED
            rows, normed = layer(
                rows, normed, following, inputs[layer_type], kv[layer_type], self.backend, kv_scales=scales
            )
        return self._head(normed), self._post_projection(normed)


def _embed_beside_plainly(
    token_ids: torch.Tensor,  # [B] int64
    table: torch.Tensor,  # [vocab_size, backbone]
    scale: torch.Tensor,  # []
    hidden: torch.Tensor,  # [B, backbone]
) -> torch.Tensor:  # [B, 2 * backbone]
    return torch.cat((F.embedding(token_ids, table) * scale, hidden), -1)


def _embed_beside_for(device: torch.device) -> Callable[..., torch.Tensor]:
    if device.type == "cuda":
        from tandem.models.gemma4.embed_kernel import embed_beside  # needs Triton, which a CPU does without

        return embed_beside
    return _embed_beside_plainly
