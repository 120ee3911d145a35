"""What a verifier says of the memory that it shares. Nothing of it has been checked."""

from dataclasses import dataclass

from tandem.exchange.spec import ExchangeSpec


@dataclass(frozen=True)
class FileOffer:
    """Two files."""

    spec: ExchangeSpec
    generation: int
    target_path: str
    drafts_path: str


@dataclass(frozen=True)
class CudaOffer:
    """An allocation on a GPU, and a file of flags."""

    spec: ExchangeSpec
    generation: int
    handle: bytes  # CUDA's, of the allocation
    device_uuid: str  # of the GPU that holds it
    flags_path: str
