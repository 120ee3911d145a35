"""What sampling must know of each row of a batch."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf

import torch

from tandem.core.sampling_params import SamplingParams

NO_TOP_K = 1 << 62  # more than any vocabulary holds


@dataclass(frozen=True)
class SamplingRows:
    """Per-row sampling fields, and facts about the whole batch that the host knows without asking the device.

    Made by `from_params` or `from_tensors`, which leave no special cases to the filters: a greedy row is stored as
    top_k = 1 at temperature 1 (one candidate is left, so noise cannot matter), and a filter that is off as a limit
    that nothing reaches.
    """

    temperature: torch.Tensor  # [R] float64, above 0
    top_k: torch.Tensor  # [R] int64, at least 1; NO_TOP_K = all
    top_p: torch.Tensor  # [R] float64, below 1; infinity = all
    min_p: torch.Tensor  # [R] float64
    seeds: torch.Tensor  # [R] int64
    positions: torch.Tensor  # [R] int64, of the token being chosen: its index in prompt + output
    is_all_greedy: bool
    max_top_k: int | None  # None: some row may choose from the whole vocabulary

    @staticmethod
    def from_params(rows: Iterable[tuple[SamplingParams, int]], device: torch.device | str = "cpu") -> "SamplingRows":
        """Builds the rows of a batch from (parameters, position of the token being chosen)."""
        pairs = list(rows)
        top_ks = [1 if params.is_greedy else params.top_k or NO_TOP_K for params, _ in pairs]
        is_cuda = torch.device(device).type == "cuda"  # pinned memory lets the copy run behind the host's back
        floats = torch.tensor(
            [
                [1.0 if params.is_greedy else params.temperature for params, _ in pairs],
                [params.top_p if params.top_p < 1.0 else inf for params, _ in pairs],
                [params.min_p for params, _ in pairs],
            ],
            dtype=torch.float64,
            pin_memory=is_cuda,
        ).to(device, non_blocking=True)
        integers = torch.tensor(
            [top_ks, [params.seed for params, _ in pairs], [position for _, position in pairs]],
            dtype=torch.int64,
            pin_memory=is_cuda,
        ).to(device, non_blocking=True)
        max_top_k = max(top_ks, default=1)
        return SamplingRows(
            temperature=floats[0],
            top_k=integers[0],
            top_p=floats[1],
            min_p=floats[2],
            seeds=integers[1],
            positions=integers[2],
            is_all_greedy=all(params.is_greedy for params, _ in pairs),
            max_top_k=None if max_top_k == NO_TOP_K else max_top_k,
        )

    @staticmethod
    def from_tensors(
        temperature: torch.Tensor,  # [R] floating, 0 = greedy
        top_k: torch.Tensor,  # [R] integer, 0 = all
        top_p: torch.Tensor,  # [R] floating
        min_p: torch.Tensor,  # [R] floating
        seeds: torch.Tensor,  # [R] int64
        positions: torch.Tensor,  # [R] integer
        *,
        is_all_greedy: bool = False,
        max_top_k: int | None = None,
    ) -> "SamplingRows":
        """Builds rows from fields that already lie on the device, encoded as in `SamplingParams`.

        The two facts are the caller's promise, as finding them out would wait for the device: `is_all_greedy` only
        if every temperature is 0, `max_top_k` at least the top_k of every row that is not greedy, and none of them 0.
        """
        is_greedy = temperature == 0
        top_k = torch.where(top_k > 0, top_k.long(), NO_TOP_K)
        return SamplingRows(
            temperature=torch.where(is_greedy, 1.0, temperature.double()),
            top_k=torch.where(is_greedy, 1, top_k),
            top_p=torch.where(top_p < 1.0, top_p.double(), inf),
            min_p=min_p.double(),
            seeds=seeds.long(),
            positions=positions.long(),
            is_all_greedy=is_all_greedy,
            max_top_k=max_top_k,
        )

    @staticmethod
    def from_slots(
        temperature: torch.Tensor,  # [S] float64, 0 = greedy
        top_k: torch.Tensor,  # [S] int64, 0 = all
        top_p: torch.Tensor,  # [S] float64
        min_p: torch.Tensor,  # [S] float64
        seeds: torch.Tensor,  # [S] int64
        slots: torch.Tensor,  # [B] int64
        positions: torch.Tensor,  # [R] int64, of as many rows for each slot
    ) -> "SamplingRows":
        """Builds the rows of some slots, slot after slot, of which the host knows nothing."""
        num_rows = len(positions) // len(slots)
        if slots.is_cuda:
            from tandem.sampling.rows_kernel import read_rows

            floats, integers = read_rows(temperature, top_k, top_p, min_p, seeds, slots, num_rows, NO_TOP_K)
            return SamplingRows(floats[0], integers[0], floats[1], floats[2], integers[1], positions, False, None)
        rows = slots.repeat_interleave(num_rows)
        return SamplingRows.from_tensors(
            temperature[rows], top_k[rows], top_p[rows], min_p[rows], seeds[rows], positions
        )

    def at(self, positions: torch.Tensor) -> "SamplingRows":  # [R] int64
        """The same rows choosing the tokens at other positions: a drafter's next step, a sequence's next round."""
        return replace(self, positions=positions)
