"""The decoder layer that target and drafter are made of.

    x = x + post_attention_norm(o(attention(input_norm(x))))
    x = x + post_feedforward_norm(down(gelu(gate(y)) * up(y))),  y = pre_feedforward_norm(x)
    x = x * layer_scalar

A layer ends with the norm of what follows, the next layer or the head: one pass computes both.

In some networks experts stand beside the feed-forward (`moe`) or a second embedding follows it (`per_layer_inputs`).

These are plain objects that hold tensors, not `nn.Module`s: at small sizes, looking parameters up would cost as much
as using them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from tandem.attention.base import AttentionBackend
from tandem.kv_cache.scales import UNSCALED, KvScales, scales_for
from tandem.kv_cache.storage import write_kv
from tandem.models.gemma4.config import Gemma4TextConfig
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.moe import MixtureOfExperts
from tandem.models.gemma4.norm import RmsNorm
from tandem.models.gemma4.parameters import Destination, Destinations
from tandem.models.gemma4.per_layer_inputs import PerLayerGate
from tandem.models.gemma4.shares import head_share
from tandem.models.ranks import ALONE, Ranks

__all__ = ["DecoderLayer", "LayerInputs", "RmsNorm"]


@dataclass(frozen=True)
class LayerInputs:
    """What all layers of one type share in a step."""

    cos: torch.Tensor  # [T, 1, head_dim]
    sin: torch.Tensor  # [T, 1, head_dim], the first half negated
    slot_mapping: torch.Tensor  # [T] int64
    plan: Any


class DecoderLayer:
    """Attention and feed-forward with their four norms.

    A layer that owns KV writes its rows' keys and values before it attends; one that does not projects queries only.
    """

    def __init__(
        self,
        config: Gemma4TextConfig,
        layer_id: int,
        owns_kv: bool,
        dtype: torch.dtype,
        device: torch.device,
        linear: type[Linear] = Linear,
        ranks: Ranks = ALONE,
        stores_all_heads: bool = False,
    ) -> None:
        """Allocates; `destinations` says what to fill.

        Args:
            config: the network's.
            layer_id: which layer.
            owns_kv: whether it has keys and values of its own.
            dtype: of weights and activations.
            device: where they live.
            linear: makes attention's and feed-forward's products.
            ranks: who computes the layer; this rank has its share of heads and columns.
            stores_all_heads: a layer that owns KV writes that of the other ranks' heads too.
        """
        attention = config.attention[config.layer_types[layer_id]]
        share = head_share(config.num_attention_heads, attention.num_kv_heads, ranks)
        stored = range(attention.num_kv_heads) if stores_all_heads else share.kv
        assert stored.start == share.kv.start, "queries read the first of the heads that are stored"
        hidden_size, head_dim = config.hidden_size, attention.head_dim
        self._prefix = f"{config.tensor_prefix}layers.{layer_id}."
        self._owns_kv, self._is_k_eq_v = owns_kv, attention.is_k_eq_v
        self._head_dim, self._half = head_dim, head_dim // 2
        self._ranks, self._share, self._stored = ranks, share, stored
        self._all_heads = {"q": config.num_attention_heads, "k": attention.num_kv_heads, "v": attention.num_kv_heads}
        self._num_heads, self._num_kv_heads = len(share.queries), len(stored)
        self._num_rotated = self._num_heads + (self._num_kv_heads if owns_kv else 0)
        num_all = self._num_rotated + (self._num_kv_heads if owns_kv else 0)
        num_projected = self._num_rotated if self._is_k_eq_v else num_all
        self._columns = ranks.share(config.intermediate_size_of(layer_id))
        self._intermediate_size = config.intermediate_size_of(layer_id)
        num_columns = len(self._columns)

        self._qkv = linear(hidden_size, num_projected * head_dim, dtype, device)
        self._o = linear(self._num_heads * head_dim, hidden_size, dtype, device)
        self._gate_up = linear(hidden_size, 2 * num_columns, dtype, device)
        self._down = linear(num_columns, hidden_size, dtype, device)
        self._head_norm = RmsNorm((num_all, head_dim), config.rms_norm_eps, dtype, device)
        self._norms = {
            name: RmsNorm((hidden_size,), config.rms_norm_eps, dtype, device)
            for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")
        }
        self.input_norm, self._post_attention_norm, self._pre_feedforward_norm, self._post_feedforward_norm = (
            self._norms.values()
        )
        self._experts = MixtureOfExperts(config, self._prefix, dtype, device, linear, ranks) if config.experts else None
        self._per_layer_gate = PerLayerGate(config, self._prefix, dtype, device) if config.per_layer_inputs else None
        self._layer_scalar = torch.ones(1, dtype=dtype, device=device)
        self._activate = _activation_for(device)
        self._arrange = self._arrange_by_kernel if device.type == "cuda" else self._arrange_plainly

    @property
    def num_stored_heads(self) -> int:
        """KV heads that this rank stores, of a layer that owns KV."""
        return len(self._stored)

    def destinations(self) -> Destinations:
        """Every tensor of the layer. Values are normed without a weight, so their rows of the head norm stay."""
        heads, size = {"q": (0, self._num_heads)}, self._head_dim
        if self._owns_kv:
            heads["k"] = (self._num_heads, self._num_rotated)
            if not self._is_k_eq_v:
                heads["v"] = (self._num_rotated, self._num_rotated + self._num_kv_heads)
        for name, (start, stop) in heads.items():
            part = self._share.queries if name == "q" else self._stored
            projection = self._qkv.destination(start * size, stop * size)
            yield f"{self._prefix}self_attn.{name}_proj.weight", self._of_heads(projection, 0, name, part)
            if name != "v":
                yield f"{self._prefix}self_attn.{name}_norm.weight", self._head_norm.destination(start, stop)
        yield (
            f"{self._prefix}self_attn.o_proj.weight",
            self._of_heads(self._o.destination(), 1, "q", self._share.queries),
        )
        width, columns, gate = self._intermediate_size, self._columns, len(self._columns)
        yield f"{self._prefix}mlp.gate_proj.weight", self._gate_up.destination(0, gate).of_part(0, width, columns)
        yield f"{self._prefix}mlp.up_proj.weight", self._gate_up.destination(gate, 2 * gate).of_part(0, width, columns)
        yield f"{self._prefix}mlp.down_proj.weight", self._down.destination().of_part(1, width, columns)
        for name, norm in self._norms.items():
            yield f"{self._prefix}{name}_layernorm.weight", norm.destination()
        if self._experts:
            yield from self._experts.destinations()
        if self._per_layer_gate:
            yield from self._per_layer_gate.destinations()
        yield f"{self._prefix}layer_scalar", Destination((1,), (self._layer_scalar,))

    def _of_heads(self, destination: Destination, dim: int, name: str, heads: range) -> Destination:
        """The memory of some heads, in a tensor that has all of them in dimension `dim`."""
        size = self._head_dim
        return destination.of_part(dim, self._all_heads[name] * size, range(heads.start * size, heads.stop * size))

    def kv_scales(self, dtype: torch.dtype) -> KvScales:
        """What this layer's keys and values are divided by to be stored as `dtype`; its weights must have been filled.

        Normed rows have a root mean square of one, so that no number exceeds the root of the head's size, nor does any
        that rotation makes of two of them; keys have their weight besides.
        """
        root = self._head_dim**0.5
        largest_weight = self._head_norm.largest_weight(self._num_heads, self._num_rotated)
        return scales_for(root * largest_weight, root, dtype)

    def __call__(
        self,
        hidden: torch.Tensor,  # [T, hidden_size]
        normed: torch.Tensor,  # [T, hidden_size], by `input_norm`
        following: RmsNorm,  # the norm of what comes next
        inputs: LayerInputs,
        kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim] of the layer whose KV this one reads
        backend: AttentionBackend,
        per_layer_input: torch.Tensor | None = None,  # [T, size] where the network has per-layer embeddings
        kv_scales: KvScales = UNSCALED,  # of `kv`
    ) -> tuple[torch.Tensor, torch.Tensor]:  # [T, hidden_size] twice
        """One layer over the rows of a step: what it makes of them, and that normed by `following`."""
        attended = self._attend(normed, inputs, kv, backend, kv_scales)
        attended = self._ranks.sum(self._o(attended))
        hidden, normed = self._post_attention_norm.add_then(hidden, attended, self._pre_feedforward_norm)
        feedforward = self._down(self._activate(self._gate_up(normed)))
        feedforward = self._experts.add_to(feedforward, hidden) if self._experts else self._ranks.sum(feedforward)
        if self._per_layer_gate is None:
            return self._post_feedforward_norm.add_then(hidden, feedforward, following, self._layer_scalar)
        hidden = self._post_feedforward_norm.add_to(hidden, feedforward)
        assert per_layer_input is not None
        hidden = self._per_layer_gate.add_to(hidden, per_layer_input).mul_(self._layer_scalar)
        return hidden, following(hidden)

    def _attend(
        self,
        hidden: torch.Tensor,
        inputs: LayerInputs,
        kv: torch.Tensor,
        backend: AttentionBackend,
        kv_scales: KvScales,
    ) -> torch.Tensor:  # [T, hidden_size] -> [T, num_heads * head_dim]
        product = self._qkv(hidden).view(hidden.shape[0], -1, self._head_dim)
        # The kernel stores numbers as they are; those of 8 bits are divided first.
        arrange = self._arrange if kv.dtype == hidden.dtype else self._arrange_plainly
        queries = arrange(product, inputs, kv, kv_scales)
        if kv.shape[2] > len(self._share.kv):
            kv = kv.narrow(2, 0, len(self._share.kv))
        return backend.attend(queries, kv, inputs.plan, kv_scales).view(hidden.shape[0], -1)

    def _arrange_plainly(
        self,
        heads: torch.Tensor,  # [T, num_projected, head_dim]: queries, keys, values
        inputs: LayerInputs,
        kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
        kv_scales: KvScales,
    ) -> torch.Tensor:  # [T, num_heads, head_dim]
        """The queries, normed and turned; keys and values are in `kv` then."""
        num_tokens, num_heads = heads.shape[0], self._num_heads
        if self._owns_kv and self._is_k_eq_v:
            heads = torch.cat((heads, heads[:, num_heads:]), 1)
        heads = self._head_norm(heads)
        rotated = heads.narrow(1, 0, self._num_rotated) if self._owns_kv else heads
        swapped = rotated.roll(self._half, -1)
        rotated.mul_(inputs.cos).addcmul_(swapped, inputs.sin)
        if self._owns_kv:
            new = heads.narrow(1, num_heads, 2 * self._num_kv_heads)
            write_kv(kv, inputs.slot_mapping, new.view(num_tokens, *kv.shape[1:]), kv_scales)
            heads = heads.narrow(1, 0, num_heads)
        return heads

    def _arrange_by_kernel(
        self,
        heads: torch.Tensor,  # [T, num_projected, head_dim]
        inputs: LayerInputs,
        kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
        kv_scales: KvScales,
    ) -> torch.Tensor:  # [T, num_heads, head_dim]
        """The same in one pass."""
        from tandem.models.gemma4.head_kernel import arrange_heads  # needs Triton, which a CPU does without

        return arrange_heads(
            heads,
            self._head_norm.weight,
            self._head_norm.eps,
            inputs.cos,
            inputs.sin,
            kv,
            inputs.slot_mapping,
            self._num_heads,
            self._owns_kv,
            self._is_k_eq_v,
        )


def _activate_plainly(product: torch.Tensor) -> torch.Tensor:  # [T, 2 * size] -> [T, size]
    gate, up = product.chunk(2, -1)
    return F.gelu(gate, approximate="tanh").mul_(up)


def _activation_for(device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    if device.type == "cuda":
        from tandem.models.gemma4.activation_kernel import gate_rows

        return gate_rows
    return _activate_plainly
