"""The target network: tokens to hidden rows, hidden rows to logits."""

from dataclasses import replace
from itertools import repeat
from typing import Protocol

import torch
import torch.nn.functional as F

from tandem.attention.backends import backend_for
from tandem.attention.base import AttentionBackend, AttentionMetadata
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.scales import KvScales
from tandem.models.gemma4.config import Gemma4TextConfig
from tandem.models.gemma4.layers import DecoderLayer, LayerInputs
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.norm import RmsNorm
from tandem.models.gemma4.parameters import Destination, Destinations
from tandem.models.gemma4.per_layer_inputs import PerLayerInputs
from tandem.models.gemma4.rotary import RotaryEmbedding
from tandem.models.ranks import ALONE, Ranks


class LayerKv(Protocol):
    """KV tensors by the layer that owns them, such as a `KvStorage`."""

    def __getitem__(self, layer_id: int, /) -> torch.Tensor:  # [num_slots, 2, num_kv_heads, head_dim]
        """The tensor of a layer that owns KV."""
        ...

    def scales(self, layer_id: int, /) -> KvScales:
        """What its keys and values are divided by."""
        ...


class Gemma4Target:
    """Gemma 4's text decoder, of any size.

    `forward` and `compute_logits` return inference tensors, which may only be changed in place under
    `torch.inference_mode`.
    """

    def __init__(
        self,
        config: Gemma4TextConfig,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        embedding: torch.Tensor | None = None,  # [vocab_size, hidden_size]
        backend: AttentionBackend | None = None,
        linear: type[Linear] = Linear,
        ranks: Ranks = ALONE,
    ) -> None:
        """Allocates; `destinations` says what to fill.

        Args:
            config: the shape.
            dtype: of weights and activations.
            device: where they live.
            embedding: where the token table goes, such as shared memory; allocated when absent.
            backend: plans steps and computes attention; the device's when absent.
            linear: class of the layers' products; that of the head is always `Linear`.
            ranks: who computes the network: this rank has its share of every layer, and the leader alone has the head.
        """
        device = torch.device(device)
        shape = (config.vocab_size, config.hidden_size)
        if embedding is None:
            embedding = torch.empty(shape, dtype=dtype, device=device)
        assert embedding.shape == shape and embedding.dtype == dtype
        self.config = config
        self.embed_tokens = embedding  # [vocab_size, hidden_size]
        self.backend = backend or backend_for(config.num_attention_heads, device, dtype)
        self._embed_scale = torch.tensor(config.hidden_size**0.5).to(device, dtype)  # rounded as the weights are
        # On a CPU the head is a copy, laid out as `parameters` says; elsewhere it is the table itself.
        self._is_head_copied = device.type == "cpu" and ranks.is_leader
        self._head = (
            Linear(config.hidden_size, config.vocab_size, dtype, device)
            if self._is_head_copied
            else Linear.of(embedding.t())
        )
        self._ranks = ranks
        # What steps are planned by: a KV head that several ranks hold counts for each, with the queries that read it.
        self.kv_groups = tuple(
            replace(group, num_kv_heads=max(group.num_kv_heads, ranks.size)) for group in config.kv_groups
        )
        self._owners = config.kv_owners
        shared_with_drafter = self.drafter_layers.values() if ranks.is_leader else ()
        self._layers = [
            DecoderLayer(
                config, layer_id, owner == layer_id, dtype, device, linear, ranks, layer_id in shared_with_drafter
            )
            for layer_id, owner in enumerate(self._owners)
        ]
        self._per_layer_inputs = PerLayerInputs(config, dtype, device) if config.per_layer_inputs else None
        self._norm = RmsNorm((config.hidden_size,), config.rms_norm_eps, dtype, device)
        self._following = [*(layer.input_norm for layer in self._layers[1:]), self._norm]  # the norm after each layer
        self._rotary = RotaryEmbedding(config.attention, dtype, device)

    @property
    def drafter_layers(self) -> dict[str, int]:
        """Layer type -> the layer whose KV the drafter reads: the last of the type that owns any."""
        return {group.name: group.layer_ids[-1] for group in self.kv_groups}

    @property
    def stored_groups(self) -> tuple[KvGroup, ...]:
        """What a `KvStorage` for this network has: one group for each layer that owns KV, named as in `kv_groups`."""
        return tuple(
            replace(group, layer_ids=(layer_id,), num_kv_heads=self._layers[layer_id].num_stored_heads)
            for group in self.kv_groups
            for layer_id in group.layer_ids
        )

    def kv_scales(self, dtype: torch.dtype) -> dict[int, KvScales]:
        """For each layer that owns KV, what it is divided by to be stored as `dtype`; weights must have been filled."""
        return {layer_id: self._layers[layer_id].kv_scales(dtype) for layer_id in sorted(set(self._owners))}

    def destinations(self) -> Destinations:
        """Every tensor that a checkpoint must have."""
        prefix = self.config.tensor_prefix
        heads = self._head.destination().views if self._is_head_copied else ()
        yield f"{prefix}embed_tokens.weight", Destination(tuple(self.embed_tokens.shape), (self.embed_tokens, *heads))
        if self._per_layer_inputs:
            yield from self._per_layer_inputs.destinations()
        for layer in self._layers:
            yield from layer.destinations()
        yield f"{prefix}norm.weight", self._norm.destination()

    @torch.inference_mode()
    def forward(
        self,
        token_ids: torch.Tensor,  # [T] int64
        metadata: AttentionMetadata,
        kv: LayerKv,
    ) -> torch.Tensor:  # [T, hidden_size]
        """The rows after the final norm. Writes the step's keys and values into `kv`.

        Every rank is called with the same step; of the tokens, those that the leader has count.
        """
        token_ids = self._ranks.take(token_ids)
        if metadata.num_rows > metadata.num_tokens:
            token_ids = torch.cat((token_ids, token_ids[-1:].expand(metadata.num_rows - metadata.num_tokens)))
        hidden = F.embedding(token_ids, self.embed_tokens) * self._embed_scale
        inputs = {
            layer_type: LayerInputs(cos, sin, metadata.slot_mapping[layer_type], metadata.plans[layer_type])
            for layer_type, (cos, sin) in self._rotary(metadata.positions).items()
        }
        extra = self._per_layer_inputs(token_ids, hidden) if self._per_layer_inputs else repeat(None, len(self._layers))
        normed = self._layers[0].input_norm(hidden)
        for layer, following, layer_type, owner, per_layer_input in zip(
            self._layers, self._following, self.config.layer_types, self._owners, extra, strict=True
        ):
            layer_kv, scales = kv[owner], kv.scales(owner)
            hidden, normed = layer(
                hidden, normed, following, inputs[layer_type], layer_kv, self.backend, per_layer_input, scales
            )
        return self._ranks.end(normed[: metadata.num_tokens])

    @torch.inference_mode()
    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:  # [R, hidden_size] -> [R, vocab_size] float32
        """Softcapped logits of rows that `forward` returned."""
        num_rows = hidden.shape[0]
        if num_rows == 1:  # one row alone would round differently
            hidden = hidden.expand(2, -1)
        product = self._head(hidden)[:num_rows]
        softcap = self.config.final_logit_softcapping
        return product.float() if softcap is None else _capped(product, softcap)


def _capped(product: torch.Tensor, cap: float) -> torch.Tensor:  # [R, V] -> [R, V] float32
    if product.device.type == "cuda":
        from tandem.models.gemma4.softcap_kernel import cap_rows  # needs Triton, which a CPU does without

        return cap_rows(product, cap)
    return product.float().div_(cap).tanh_().mul_(cap)
