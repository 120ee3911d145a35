"""What `tandem build-centroids` can be told."""

from dataclasses import dataclass

from tandem.core.config import option
from tandem.core.errors import ConfigError


@dataclass(frozen=True)
class CentroidsConfig:
    """Settings of one build.

    Raises:
        ConfigError: numbers that make no clusters.
    """

    draft_model: str = option(help="folder of a drafter's checkpoint, which stays as it is")
    output: str = option(help="folder to be made for the new checkpoint")
    num_centroids: int = option(2048, help="clusters of tokens, all of one size: a divisor of the vocabulary")
    centroid_top_k: int = option(32, help="clusters whose tokens a draft scores")
    iterations: int = option(10, help="of the clustering; each reads the whole token table")
    seed: int = option(0, help="same seed, same clusters")

    def __post_init__(self) -> None:
        """Refuses what no checkpoint could have."""
        for name in ("num_centroids", "centroid_top_k", "iterations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")
        if not 0 <= self.seed < 1 << 63:
            raise ConfigError("--seed must be at least 0 and below 2^63")
