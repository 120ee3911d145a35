"""Gemma 4's MTP drafter without the host: K steps as one device program, which can be captured as a graph.

What `mtp_drafter` says of positions, keys and noise holds here too. What stands in the inputs is moved into range
before it is an index: a slot that makes no sense is given drafts that make none, and the judge refuses them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from tandem.attention.base import DevicePlanner
from tandem.attention.device_batch import DeviceBatch
from tandem.core.draft_position import AT_P, DRAFT_POSITIONS
from tandem.engine.batch_sizes import batch_size, batch_sizes
from tandem.engine.graphs import Graphs
from tandem.engine.limits import ROUNDS_AHEAD
from tandem.engine.shared_scales import shared_scales
from tandem.exchange.draft_inputs import DraftInputs
from tandem.models.gemma4.draft_head import DraftScores
from tandem.models.gemma4.drafter import Gemma4MtpDrafter
from tandem.sampling.rows import SamplingRows
from tandem.sampling.sampler import sample

_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 12)  # of tokens a round; others go through the next larger one


class DeviceDrafter:
    """Writes drafts of slots where the verifier's next round reads them."""

    def __init__(
        self,
        network: Gemma4MtpDrafter,
        inputs: DraftInputs,
        drafts: torch.Tensor,  # [num_slots, max_draft_tokens] int64
        position: str = AT_P,
        suppress_token_ids: Sequence[int] = (),
    ) -> None:
        """Takes the network, which from now on looks tokens up in the inputs' embedding table.

        Args:
            network: of the shape that the inputs have.
            inputs: where the verifier writes; its last slot is nobody's.
            drafts: where to write.
            position: of the queries, one of `DRAFT_POSITIONS`.
            suppress_token_ids: never drafted.
        """
        network.bind(inputs.embedding)
        self._network, self._inputs, self.drafts = network, inputs, drafts
        self._planner: DevicePlanner = network.backend  # type: ignore[assignment]
        self._offset = DRAFT_POSITIONS[position]
        device, spec = inputs.embedding.device, inputs.spec
        self._suppressed = torch.tensor(
            [i for i in suppress_token_ids if i < spec.vocabulary_size], dtype=torch.int64, device=device
        )
        self._most = spec.num_slots - 1
        self._max_position = spec.max_blocks * spec.block_size - 1
        self._spare_blocks = {layer.group: layer.num_blocks - 1 for layer in spec.layers}
        self._kv_scales = shared_scales(spec)
        self._graphs = Graphs(device)
        self._counts: Sequence[int] = ()  # of tokens, that rounds were captured for
        self._slots = torch.full((self._most,), self._most, dtype=torch.int64, device=device)
        is_cuda = device.type == "cuda"
        self._buffers = [
            torch.empty(self._most, dtype=torch.int64, pin_memory=is_cuda) for _ in range(ROUNDS_AHEAD + 1)
        ]
        self._number = 0

    def capture(self, most: int) -> None:
        """Makes rounds of up to `most` tokens cheap to launch, for every size of a batch; the large ones first, whose
        memory the others then share."""
        self._counts = sorted({most, *(count for count in _COUNTS if count < most)})
        for size in reversed(batch_sizes(self._most)):
            for count in reversed(self._counts):
                self._graphs.capture((size, count), self._bind(size, count))

    def draft(self, slots: Sequence[int], num_tokens: int) -> None:
        """Enqueues `num_tokens` drafts of each slot on the current stream, or a few more; returns at once.

        The slots' own rows are read when the device comes to it. At most `ROUNDS_AHEAD` calls may be under way.
        """
        size = batch_size(len(slots), self._most)
        num_tokens = next((count for count in self._counts if count >= num_tokens), num_tokens)
        self._number += 1
        buffer = self._buffers[self._number % len(self._buffers)][:size]
        buffer.copy_(torch.tensor([*slots, *[self._most] * (size - len(slots))]))
        self._slots[:size].copy_(buffer, non_blocking=True)
        self._graphs.run((size, num_tokens), self._bind(size, num_tokens))

    def _bind(self, size: int, num_tokens: int) -> Callable[[], None]:
        return lambda: self._run(self._slots[:size], num_tokens)

    @torch.inference_mode()
    def _run(
        self,
        slots: torch.Tensor,  # [B] int64
        num_tokens: int,
    ) -> None:
        inputs, network = self._inputs, self._network
        positions = inputs.positions[slots].clamp(0, self._max_position)  # [B], P
        batch = DeviceBatch(slots, positions, positions, 1, self._max_position, inputs.block_tables, self._spare_blocks)
        metadata = self._planner.prepare_on_device(batch, network.kv_groups, inputs.spec.block_size)
        if self._offset:
            metadata = replace(metadata, positions=positions + self._offset)
        layer_inputs = network.inputs_of(metadata)
        places = positions + torch.arange(1, num_tokens + 1, device=positions.device).unsqueeze(1)  # [K, B]
        sampling = SamplingRows.from_slots(
            inputs.temperature, inputs.top_k, inputs.top_p, inputs.min_p, inputs.seeds, slots, places[0]
        )
        token_ids = inputs.token_ids[slots].clamp(0, inputs.spec.vocabulary_size - 1)
        hidden = inputs.hidden[slots]
        chosen = []
        for place in places:
            scores, hidden = network.forward(token_ids, hidden, layer_inputs, inputs.kv, self._kv_scales)
            token_ids = sample(self._suppress(scores), sampling.at(place), scores.token_ids)
            chosen.append(token_ids)
        self.drafts[slots, :num_tokens] = torch.stack(chosen, 1)

    def _suppress(self, scores: DraftScores) -> torch.Tensor:  # [B, C]
        logits = scores.logits
        if not len(self._suppressed):
            return logits
        if scores.token_ids is None:
            return logits.index_fill_(1, self._suppressed, -torch.inf)
        return logits.masked_fill_(torch.isin(scores.token_ids, self._suppressed), -torch.inf)
