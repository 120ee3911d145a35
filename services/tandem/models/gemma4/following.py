"""How the other ranks of a shared target follow its leader."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch

from tandem.attention.base import DevicePlanner
from tandem.attention.batch_message import from_numbers
from tandem.attention.round_message import RoundForm, from_tensor
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.leading import Told
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.ranks import ProcessRanks


class Graphs(Protocol):
    """Programs that can be captured, as the leader captures its own."""

    def capture(self, key: Hashable, program: Callable[[], None]) -> None:
        """Captures one, having run it once."""
        ...

    def run(self, key: Hashable, program: Callable[[], None]) -> None:
        """Runs one, as a graph if it was captured."""
        ...

    def clear(self) -> None:
        """Forgets all."""
        ...


class Follower:
    """One rank's share of whatever the leader computes."""

    def __init__(
        self,
        target: Gemma4Target,
        storage: KvStorage,
        ranks: ProcessRanks,
        spare_blocks: Mapping[str, int],
        graphs: Graphs,
    ) -> None:
        """Takes the parts.

        Args:
            target: this rank's share of the network.
            storage: its KV tensors.
            ranks: all that compute it.
            spare_blocks: block of each group that nobody holds.
            graphs: where rounds are captured.
        """
        self._target, self._storage, self._ranks = target, storage, ranks
        self._spare_blocks, self._graphs = spare_blocks, graphs
        self._groups = [group.name for group in target.kv_groups]
        self._device = target.embed_tokens.device

    def follow(self, steps: Iterable[Sequence[int]]) -> None:
        """Computes what the leader tells of, until there is no more."""
        for kind, *numbers in steps:
            if kind == Told.STEP:
                self._step(numbers)
                continue
            form = RoundForm(*numbers)
            run = self._graphs.capture if kind == Told.CAPTURE else self._graphs.run
            run(form, partial(self._round, form))
        self._graphs.clear()

    def _step(self, numbers: Sequence[int]) -> None:
        batch = from_numbers(numbers, self._groups)
        metadata = self._target.backend.prepare(batch, self._target.kv_groups, self._storage.block_size)
        self._target.forward(self._empty(batch.num_tokens, torch.int64), metadata, self._storage)

    @torch.inference_mode()
    def _round(self, form: RoundForm) -> None:
        """What the leader's `SteadyRound` computes on all ranks."""
        planner, block_size = self._target.backend, self._storage.block_size
        assert isinstance(planner, DevicePlanner)
        numbers = self._ranks.take(self._empty(form.size(len(self._groups), block_size), torch.int32))
        batch = from_tensor(numbers, form, self._groups, block_size, self._spare_blocks)
        metadata = planner.prepare_on_device(batch, self._target.kv_groups, block_size)
        self._target.forward(self._empty(form.num_sequences * form.num_rows, torch.int64), metadata, self._storage)

    def _empty(self, size: int, dtype: torch.dtype) -> torch.Tensor:  # -> [size]
        return torch.empty(size, dtype=dtype, device=self._device)
