"""The mixture of experts of 26B-A4B: every row goes through the few experts that its router scores highest.

    s = softmax over the top k of router(norm(x) * scale / sqrt(hidden_size)), times each chosen expert's own scale
    moe(x) = sum over the chosen experts e of s_e * down_e(gelu(gate_e(y)) * up_e(y)),  y = pre_norm(x)

Rows are sorted by expert, so that two grouped products compute all experts: each weight is read in place, at most once
a step, however many rows chose its expert. Counts and offsets stay on the device. A softmax over the top k alone equals
one over all experts that is then renormalised.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from tandem.models.gemma4.config import Gemma4TextConfig
from tandem.models.gemma4.expert_matrices import ExpertMatrices
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.norm import RmsNorm
from tandem.models.gemma4.parameters import MIN_STABLE_ROWS, Destination, Destinations
from tandem.models.ranks import ALONE, Ranks


class MixtureOfExperts:
    """Router and experts of one layer, with the norms around them."""

    def __init__(
        self,
        config: Gemma4TextConfig,
        prefix: str,
        dtype: torch.dtype,
        device: torch.device,
        linear: type[Linear] = Linear,
        ranks: Ranks = ALONE,
    ) -> None:
        """Allocates; `destinations` says what to fill.

        Args:
            config: the network's.
            prefix: that of the layer's tensors.
            dtype: of rows, and of all weights but the experts'.
            device: where they live.
            linear: says in which format the experts' weights are kept. The router's are few, and near to one another.
            ranks: who computes; each has some columns of every expert, so that all have as much to do.
        """
        assert config.experts is not None
        num_experts = config.experts.num_experts
        self._ranks, self._width = ranks, config.experts.intermediate_size
        self._columns = ranks.share(self._width)
        size = len(self._columns)
        hidden_size = config.hidden_size
        self._prefix, self._top_k, self._router_scale = prefix, config.experts.top_k, hidden_size**-0.5
        self._router = Linear(hidden_size, num_experts, dtype, device)
        self._expert_scale = torch.ones(num_experts, dtype=dtype, device=device)
        weights_dtype = linear.weights_dtype(dtype)
        self._gate_up = ExpertMatrices(num_experts, hidden_size, 2 * size, weights_dtype, device)
        self._down = ExpertMatrices(num_experts, size, hidden_size, weights_dtype, device)
        self._expert_ids = torch.arange(num_experts, device=device)
        self._mix_sorted = _kernels_for(device)
        self._router_norm, self._dense_norm, self._pre_norm, self._post_norm = (
            RmsNorm((hidden_size,), config.rms_norm_eps, dtype, device) for _ in range(4)
        )

    def destinations(self) -> Destinations:
        """Every tensor of router, experts and norms."""
        yield f"{self._prefix}router.proj.weight", self._router.destination()
        yield f"{self._prefix}router.scale", self._router_norm.destination()
        yield (
            f"{self._prefix}router.per_expert_scale",
            Destination(tuple(self._expert_scale.shape), (self._expert_scale,)),
        )
        width, columns = self._width, self._columns
        up = range(width + columns.start, width + columns.stop)
        yield f"{self._prefix}experts.gate_up_proj", self._gate_up.destination().of_part(1, 2 * width, columns, up)
        yield f"{self._prefix}experts.down_proj", self._down.destination().of_part(2, width, columns)
        yield f"{self._prefix}post_feedforward_layernorm_1.weight", self._dense_norm.destination()
        yield f"{self._prefix}pre_feedforward_layernorm_2.weight", self._pre_norm.destination()
        yield f"{self._prefix}post_feedforward_layernorm_2.weight", self._post_norm.destination()

    def add_to(self, dense: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:  # [T, hidden_size] twice -> same
        """The normed rows of the dense feed-forward, of which each rank has its part, and those of the experts."""
        expert_ids, weights = self._route(hidden)
        dense, mixed = self._ranks.sum_pair(dense, self._mix(self._pre_norm(hidden), expert_ids, weights))
        return self._post_norm.add_to(self._dense_norm(dense), mixed)

    def _route(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # -> [T, k] int64, [T, k] float32
        scores = self._router(self._router_norm(hidden))
        top_scores, expert_ids = scores.topk(self._top_k, -1)
        weights = top_scores.float().mul_(self._router_scale).softmax(-1)
        return expert_ids, weights.mul_(self._expert_scale[expert_ids])

    def _mix(
        self,
        rows: torch.Tensor,  # [T, hidden_size]
        expert_ids: torch.Tensor,  # [T, k]
        weights: torch.Tensor,  # [T, k]
    ) -> torch.Tensor:  # [T, hidden_size]
        sorted_ids, order = expert_ids.flatten().sort(stable=True)
        ends = torch.searchsorted(sorted_ids, self._expert_ids, right=True, out_int32=True)  # [num_experts]
        return self._mix_sorted(rows, self._gate_up, self._down, weights, order, sorted_ids, ends)


def _kernels_for(device: torch.device) -> Callable[..., torch.Tensor]:
    """The kernels that this device has, in the form of `mix_by_grouped_products`."""
    if device.type == "cuda":
        from tandem.models.gemma4.moe_kernels import mix_by_kernels

        return mix_by_kernels
    return mix_by_grouped_products


def mix_by_grouped_products(
    rows: torch.Tensor,  # [T, hidden_size]
    gate_up: ExpertMatrices,  # hidden_size to 2 * size
    down: ExpertMatrices,  # size to hidden_size
    weights: torch.Tensor,  # [T, k] float32
    order: torch.Tensor,  # [T * k] int64: places of the flattened choices, in expert order
    sorted_ids: torch.Tensor,  # [T * k]: their experts
    ends: torch.Tensor,  # [num_experts] int32: where each expert's choices end
) -> torch.Tensor:  # [T, hidden_size]
    """Each row's weighted sum over the experts that it chose, in plain torch."""
    ends, padded = _pad(ends, sorted_ids)
    num_padded = order.numel() + (MIN_STABLE_ROWS - 1) * min(order.numel(), ends.numel())
    sources = order.new_zeros(num_padded).index_copy_(0, padded, order // weights.shape[1])
    gate, up = F.grouped_mm(rows.index_select(0, sources), gate_up.wide(rows.dtype), offs=ends).chunk(2, -1)
    activated = F.gelu(gate, approximate="tanh").mul_(up)
    places = torch.empty_like(order).index_copy_(0, order, padded)
    outputs = F.grouped_mm(activated, down.wide(rows.dtype), offs=ends).index_select(0, places)
    return (outputs.view(*weights.shape, -1) * weights.unsqueeze(-1)).sum(1).to(rows.dtype)


def _pad(
    ends: torch.Tensor,  # [num_experts] int32, of each expert's rows
    sorted_ids: torch.Tensor,  # [N], expert of each row
) -> tuple[torch.Tensor, torch.Tensor]:  # [num_experts] int32, [N]
    """Room for at least `MIN_STABLE_ROWS` rows in every group that has any: the groups' ends, the rows' new places."""
    counts = ends.diff(prepend=ends.new_zeros(1))
    padding = (MIN_STABLE_ROWS - counts).clamp_(min=0).mul_(counts > 0).cumsum(0)
    before = F.pad(padding, (1, -1))
    places = before[sorted_ids].add_(torch.arange(sorted_ids.numel(), device=ends.device))
    return ends + padding.int(), places
