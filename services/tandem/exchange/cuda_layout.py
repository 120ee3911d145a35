"""Where everything lies in an exchange on a GPU, in bytes; how files are made up is said in `layout`.

The GPU memory holds the tensors of `target_parts` where the target file has them, zeros in place of its header, and
behind them the drafts: K token ids (int64) a slot.

The file of flags, one page that both processes map and make known to CUDA, begins with a header whose size is that of
the GPU memory. Each flag is a uint32, at 128, 256 and 384 (see `round_flags`).
"""

from dataclasses import dataclass

from tandem.exchange.layout import ExchangeLayout, Part, layout_of
from tandem.exchange.spec import ExchangeSpec

FLAGS_MAGIC = b"TANDEM-F"
HANDLE_BYTES = 64
_GRANULE = 2 << 20  # CUDA lets smaller allocations share a piece of memory, and hands over the whole piece


@dataclass(frozen=True)
class CudaLayout:
    """Offsets and sizes, derived from a spec alone. Made by `cuda_layout_of`, which checks the spec."""

    target: ExchangeLayout
    drafts: Part

    @property
    def num_bytes(self) -> int:
        """Size of the GPU memory: whole granules."""
        return -(-(self.drafts.offset + self.drafts.num_bytes) // _GRANULE) * _GRANULE


def cuda_layout_of(spec: ExchangeSpec) -> CudaLayout:
    """Lays out the GPU memory of an exchange.

    Raises:
        ExchangeError: a size is out of bounds, or a name unknown.
    """
    target = layout_of(spec)
    return CudaLayout(target, Part("drafts", "int64", (spec.num_slots, spec.max_draft_tokens), target.target_bytes))
