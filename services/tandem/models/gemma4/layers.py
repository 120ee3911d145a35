"""The decoder layer that target and drafter are made of.

    x = x + post_attention_norm(o(attention(input_norm(x))))
    x = x + post_feedforward_norm(down(gelu(gate(y)) * up(y))),  y = pre_feedforward_norm(x)
    x = x * layer_scalar

These are plain objects that hold tensors, not `nn.Module`s: at small sizes, looking parameters up would cost as much
as using them.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F

from tandem.attention.base import AttentionBackend
from tandem.models.gemma4.config import Gemma4TextConfig
from tandem.models.gemma4.parameters import Destination, Destinations, columns, empty_matrix, whole


class RmsNorm:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in float32.

    torch's own is made of seven operations on a CPU. There, the root of sum(x^2) + d * eps is a `hypot`, which leaves
    four; sqrt(d) goes into the weight.
    """

    def __init__(self, shape: tuple[int, ...], eps: float, dtype: torch.dtype, device: torch.device) -> None:
        """`shape` is that of the weight: [d], or [heads, d] for one weight a head."""
        self._dim, self._eps = shape[-1], eps
        self._is_short = device.type == "cpu" and dtype == torch.float32
        self._gain = sqrt(self._dim) if self._is_short else 1.0
        self._floor = torch.tensor(sqrt(self._dim * eps), device=device)
        self.weight = torch.full(shape, self._gain, dtype=dtype, device=device)

    def destination(self, start: int = 0, stop: int | None = None) -> Destination:
        """Of a checkpoint's [d], repeated for heads `start` to `stop` where there is a weight a head."""
        view = self.weight if self.weight.dim() == 1 else self.weight[start:stop]
        return Destination((self._dim,), (view,), self._gain)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:  # [..., d] or [..., heads, d] -> same
        """The normed rows."""
        if self._is_short:
            return x.div(self._length(x)).mul_(self.weight)
        if self.weight.dim() == 1:
            return F.rms_norm(x, (self._dim,), self.weight, self._eps)
        return F.rms_norm(x.float(), (self._dim,), None, self._eps).mul_(self.weight).to(x.dtype)

    def add_to(self, residual: torch.Tensor, x: torch.Tensor) -> torch.Tensor:  # [..., d] twice -> [..., d]
        """`residual` plus the normed rows. Overwrites `x`."""
        if self._is_short:
            length = self._length(x)
            return torch.addcdiv(residual, x.mul_(self.weight), length)
        return residual + self(x)

    def _length(self, x: torch.Tensor) -> torch.Tensor:  # [..., d] -> [..., 1]
        return torch.hypot(torch.linalg.vector_norm(x, 2, -1, True), self._floor)


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
        self, config: Gemma4TextConfig, layer_id: int, owns_kv: bool, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Allocates; `destinations` says what to fill."""
        attention = config.attention[config.layer_types[layer_id]]
        hidden_size, head_dim = config.hidden_size, attention.head_dim
        self._prefix = f"{config.tensor_prefix}layers.{layer_id}."
        self._owns_kv, self._is_k_eq_v = owns_kv, attention.is_k_eq_v
        self._head_dim, self._half = head_dim, head_dim // 2
        self._num_heads = config.num_attention_heads
        self._num_kv_heads = attention.num_kv_heads
        self._num_rotated = self._num_heads + (self._num_kv_heads if owns_kv else 0)
        num_all = self._num_rotated + (self._num_kv_heads if owns_kv else 0)
        num_projected = self._num_rotated if self._is_k_eq_v else num_all
        self._intermediate_size = config.intermediate_size

        self._qkv = empty_matrix(hidden_size, num_projected * head_dim, dtype, device)
        self._o = empty_matrix(self._num_heads * head_dim, hidden_size, dtype, device)
        self._gate_up = empty_matrix(hidden_size, 2 * config.intermediate_size, dtype, device)
        self._down = empty_matrix(config.intermediate_size, hidden_size, dtype, device)
        self._head_norm = RmsNorm((num_all, head_dim), config.rms_norm_eps, dtype, device)
        self._norms = {
            name: RmsNorm((hidden_size,), config.rms_norm_eps, dtype, device)
            for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")
        }
        self._input_norm, self._post_attention_norm, self._pre_feedforward_norm, self._post_feedforward_norm = (
            self._norms.values()
        )
        self._layer_scalar = torch.ones(1, dtype=dtype, device=device)

    def destinations(self) -> Destinations:
        """Every tensor of the layer. Values are normed without a weight, so their rows of the head norm stay."""
        heads, size = {"q": (0, self._num_heads)}, self._head_dim
        if self._owns_kv:
            heads["k"] = (self._num_heads, self._num_rotated)
            if not self._is_k_eq_v:
                heads["v"] = (self._num_rotated, self._num_rotated + self._num_kv_heads)
        for name, (start, stop) in heads.items():
            yield f"{self._prefix}self_attn.{name}_proj.weight", columns(self._qkv, start * size, stop * size)
            if name != "v":
                yield f"{self._prefix}self_attn.{name}_norm.weight", self._head_norm.destination(start, stop)
        yield f"{self._prefix}self_attn.o_proj.weight", whole(self._o)
        gate = self._intermediate_size
        yield f"{self._prefix}mlp.gate_proj.weight", columns(self._gate_up, 0, gate)
        yield f"{self._prefix}mlp.up_proj.weight", columns(self._gate_up, gate, 2 * gate)
        yield f"{self._prefix}mlp.down_proj.weight", whole(self._down)
        for name, norm in self._norms.items():
            yield f"{self._prefix}{name}_layernorm.weight", norm.destination()
        yield f"{self._prefix}layer_scalar", Destination((1,), (self._layer_scalar,))

    def __call__(
        self,
        hidden: torch.Tensor,  # [T, hidden_size]
        inputs: LayerInputs,
        kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim] of the layer whose KV this one reads
        backend: AttentionBackend,
    ) -> torch.Tensor:  # [T, hidden_size]
        """One layer over the rows of a step."""
        attended = self._attend(self._input_norm(hidden), inputs, kv, backend)
        hidden = self._post_attention_norm.add_to(hidden, torch.mm(attended, self._o))
        gate, up = torch.mm(self._pre_feedforward_norm(hidden), self._gate_up).chunk(2, -1)
        activated = F.gelu(gate, approximate="tanh").mul_(up)
        return self._post_feedforward_norm.add_to(hidden, torch.mm(activated, self._down)).mul_(self._layer_scalar)

    def _attend(
        self, hidden: torch.Tensor, inputs: LayerInputs, kv: torch.Tensor, backend: AttentionBackend
    ) -> torch.Tensor:  # [T, hidden_size] -> [T, num_heads * head_dim]
        num_tokens, num_heads = hidden.shape[0], self._num_heads
        heads = torch.mm(hidden, self._qkv).view(num_tokens, -1, self._head_dim)  # queries, keys, values
        if self._owns_kv and self._is_k_eq_v:
            heads = torch.cat((heads, heads[:, num_heads:]), 1)
        heads = self._head_norm(heads)
        rotated = heads.narrow(1, 0, self._num_rotated) if self._owns_kv else heads
        swapped = rotated.roll(self._half, -1)
        rotated.mul_(inputs.cos).addcmul_(swapped, inputs.sin)
        if self._owns_kv:
            new = heads.narrow(1, num_heads, 2 * self._num_kv_heads)
            kv.index_copy_(0, inputs.slot_mapping, new.view(num_tokens, *kv.shape[1:]))
            heads = heads.narrow(1, 0, num_heads)
        return backend.attend(heads, kv, inputs.plan).view(num_tokens, -1)
