"""The tensors behind the block tables."""

from collections.abc import Callable, Iterable, Mapping

import torch

from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.scales import UNSCALED, KvScales

Allocate = Callable[[int, tuple[int, ...]], torch.Tensor]  # layer id, shape -> zeroed tensor


class KvStorage:
    """One tensor a layer that owns KV: `[num_blocks * block_size, 2, num_kv_heads, head_dim]`.

    Slot `block_id * block_size + offset` holds one token; keys (normed and rotated) lie at index 0, values at 1, so
    that one indexed write stores both and one gather reads both. Where they have 8 bits, `scales` says what they were
    divided by.

    Slots start as zeros, and on a GPU nothing but finite numbers is written: kernels read slots that no row sees, and
    weigh them with zero.
    """

    def __init__(
        self,
        groups: Iterable[KvGroup],
        num_blocks: Mapping[str, int],
        block_size: int,
        dtype: torch.dtype,
        device: torch.device | str,
        allocate: Allocate | None = None,
        scales: Mapping[int, KvScales] | None = None,
    ) -> None:
        """Allocates every layer.

        Args:
            groups: the groups of the model.
            num_blocks: blocks of each group, by its name.
            block_size: tokens a block.
            dtype: of keys and values.
            device: where the tensors live.
            allocate: places a layer's tensor elsewhere, such as in shared memory; it returns a zeroed, contiguous
                tensor of that shape, dtype and device.
            scales: by layer; a layer that is not named has none.
        """
        assert block_size > 0
        self.block_size = block_size
        self._layers: dict[int, torch.Tensor] = {}
        self._scales = dict(scales or {})
        for group in groups:
            shape = (num_blocks[group.name] * block_size, *group.slot_shape)
            for layer_id in group.layer_ids:
                assert layer_id not in self._layers, "a layer belongs to one group"
                layer = allocate(layer_id, shape) if allocate else torch.zeros(shape, dtype=dtype, device=device)
                assert layer.shape == shape and layer.dtype == dtype and layer.is_contiguous()
                self._layers[layer_id] = layer

    def __getitem__(self, layer_id: int) -> torch.Tensor:  # [num_slots, 2, num_kv_heads, head_dim]
        """The tensor of a layer that owns KV."""
        return self._layers[layer_id]

    def scales(self, layer_id: int) -> KvScales:
        """What the layer's keys and values are divided by."""
        return self._scales.get(layer_id, UNSCALED)

    @property
    def layer_ids(self) -> tuple[int, ...]:
        """Layers that own KV, group by group."""
        return tuple(self._layers)

    @property
    def num_bytes(self) -> int:
        """Bytes of all layers together."""
        return sum(layer.nbytes for layer in self._layers.values())


def write_kv(
    layer: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
    slots: torch.Tensor,  # [T] int64
    entries: torch.Tensor,  # [T, 2, num_kv_heads, head_dim]
    scales: KvScales,
) -> None:
    """Stores keys and values, rounded to the layer's own format. They must not exceed what `scales` were made for.

    What is not finite becomes zero in a format of 8 bits.
    """
    if layer.dtype == entries.dtype:
        layer.index_copy_(0, slots, entries)
        return
    scaled = torch.stack((entries[:, 0] / scales.key, entries[:, 1] / scales.value), 1)
    scaled = torch.where(scaled.isfinite(), scaled, 0.0).to(layer.dtype)
    # As bytes: not every device copies 8-bit numbers by an index.
    layer.view(torch.uint8).index_copy_(0, slots, scaled.view(torch.uint8))


def widen_kv(
    entries: torch.Tensor,  # [T, 2, num_kv_heads, head_dim] of a layer
    dtype: torch.dtype,
    scales: KvScales,
) -> torch.Tensor:  # [T, 2, num_kv_heads, head_dim]
    """Keys and values that `write_kv` rounded, in the format that is computed in."""
    wide = entries.to(dtype)
    wide[:, 0].mul_(scales.key)
    wide[:, 1].mul_(scales.value)
    return wide
