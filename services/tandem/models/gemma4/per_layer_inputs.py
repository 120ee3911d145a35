"""Per-layer embeddings of E2B and E4B: a second view of each token, given to every layer at its end.

p = (norm(projection(e) / sqrt(hidden_size)) + table[token] * sqrt(size)) / sqrt(2),  e the token's scaled embedding
x = x + post_norm(out(gelu(gate(x)) * p_layer))
"""

from math import sqrt

import torch
import torch.nn.functional as F

from tandem.models.gemma4.config import Gemma4TextConfig
from tandem.models.gemma4.linear import Linear
from tandem.models.gemma4.norm import RmsNorm
from tandem.models.gemma4.parameters import Destination, Destinations


class PerLayerInputs:
    """What the token ids and the embeddings of a step give to each layer."""

    def __init__(self, config: Gemma4TextConfig, dtype: torch.dtype, device: torch.device) -> None:
        """Allocates; `destinations` says what to fill."""
        assert config.per_layer_inputs is not None
        self._prefix, self._size = config.tensor_prefix, config.per_layer_inputs.hidden_size
        width = config.num_hidden_layers * self._size
        self._table = torch.empty(config.per_layer_inputs.vocab_size, width, dtype=dtype, device=device)
        self._projection = Linear(config.hidden_size, width, dtype, device)
        # Rows divided by sqrt(hidden_size) and then normed are the rows normed with so much larger an eps.
        self._norm = RmsNorm((self._size,), config.rms_norm_eps * config.hidden_size, dtype, device)
        self._scale = torch.tensor(sqrt(self._size)).to(device, dtype)  # rounded as the weights are

    def destinations(self) -> Destinations:
        """The table, the projection and its norm."""
        table = Destination(tuple(self._table.shape), (self._table,))
        yield f"{self._prefix}embed_tokens_per_layer.weight", table
        yield f"{self._prefix}per_layer_model_projection.weight", self._projection.destination()
        yield f"{self._prefix}per_layer_projection_norm.weight", self._norm.destination()

    def __call__(
        self,
        token_ids: torch.Tensor,  # [T] int64
        embedded: torch.Tensor,  # [T, hidden_size]
    ) -> tuple[torch.Tensor, ...]:  # for each layer [T, size]
        """The inputs of all layers."""
        rows = self._norm(self._projection(embedded).view(len(token_ids), -1, self._size))
        rows.addcmul_(F.embedding(token_ids, self._table).view(rows.shape), self._scale)
        return rows.mul_(sqrt(0.5)).unbind(1)


class PerLayerGate:
    """How one layer takes its input in.

    On a CPU, a row rounds the same in any step as long as its size is a multiple of 32, as all are: torch computes what
    is left after its widest vectors by another routine.
    """

    def __init__(self, config: Gemma4TextConfig, prefix: str, dtype: torch.dtype, device: torch.device) -> None:
        """Allocates; `destinations` says what to fill. `prefix` is that of the layer's tensors."""
        assert config.per_layer_inputs is not None
        size, hidden_size = config.per_layer_inputs.hidden_size, config.hidden_size
        self._prefix = prefix
        self._gate = Linear(hidden_size, size, dtype, device)
        self._out = Linear(size, hidden_size, dtype, device)
        self._norm = RmsNorm((hidden_size,), config.rms_norm_eps, dtype, device)

    def destinations(self) -> Destinations:
        """The two projections and the norm after them."""
        yield f"{self._prefix}per_layer_input_gate.weight", self._gate.destination()
        yield f"{self._prefix}per_layer_projection.weight", self._out.destination()
        yield f"{self._prefix}post_per_layer_input_norm.weight", self._norm.destination()

    def add_to(self, hidden: torch.Tensor, layer_input: torch.Tensor) -> torch.Tensor:  # [T, hidden_size], [T, size]
        """`hidden` plus what the gate lets through."""
        gated = F.gelu(self._gate(hidden), approximate="tanh").mul_(layer_input)
        return self._norm.add_to(hidden, self._out(gated))
