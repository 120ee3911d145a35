"""The one interface between the networks and attention."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from tandem.attention.device_batch import DeviceBatch
from tandem.attention.metadata import QueryBatch
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.scales import UNSCALED, KvScales


@dataclass(frozen=True)
class AttentionMetadata:
    """One step's positions and plans on the device, made once and used by every layer.

    A backend may plan more rows than the step has (`num_rows` >= `num_tokens`); the networks then repeat the last token
    in the rows beyond and drop their results.
    """

    num_tokens: int
    positions: torch.Tensor  # [num_rows] int64
    slot_mapping: Mapping[str, torch.Tensor]  # group -> [num_rows] int64: where each row's key and value go
    plans: Mapping[str, Any]  # group -> what `attend` of the same backend takes

    @property
    def num_rows(self) -> int:
        """Rows that the networks run."""
        return self.positions.shape[0]


class AttentionBackend(Protocol):
    """Reads keys and values where the block tables say they are."""

    def prepare(self, batch: QueryBatch, groups: Iterable[KvGroup], block_size: int) -> AttentionMetadata:
        """Plans a step for `groups`, whose names `batch.block_tables` must have."""
        ...

    def attend(
        self,
        query: torch.Tensor,  # [num_rows, num_heads, head_dim], normed and rotated
        kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
        plan: Any,
        scales: KvScales = UNSCALED,
    ) -> torch.Tensor:  # [num_rows, num_heads, head_dim], rows contiguous
        """Softmax(q k) v with scale 1: Gemma 4 norms queries and keys instead. Query head h reads KV head h // G.

        Keys and values may be of 8 bits; `scales` are what they were divided by.
        """
        ...


@runtime_checkable
class DevicePlanner(AttentionBackend, Protocol):
    """An attention backend that plans rounds on the device, such as `PagedBackend`."""

    def prepare_on_device(self, batch: DeviceBatch, groups: Sequence[KvGroup], block_size: int) -> AttentionMetadata:
        """Plans a round without the host."""
        ...
