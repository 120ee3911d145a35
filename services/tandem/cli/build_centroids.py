"""`tandem build-centroids`: a drafter that scores a few clusters of tokens, out of one that scores all."""

import argparse
from pathlib import Path

from tandem.cli import console
from tandem.cli.centroids_config import CentroidsConfig
from tandem.cli.parser import Parser, add_options, load_config


def configure(parser: Parser) -> None:
    """Adds the command's options."""
    add_options(parser, CentroidsConfig)


def run(arguments: argparse.Namespace) -> int:
    """Clusters and writes."""
    config = load_config(CentroidsConfig, arguments)
    from tandem.models.gemma4.centroid_checkpoint import write_with_centroids
    from tandem.models.gemma4.drafter_config import CentroidConfig, read_drafter_config

    def tell(iteration: int, distance: float) -> None:
        console.notice(
            f"iteration {iteration} of {config.iterations}: {distance:.4f} from token to centroid on average"
        )

    centroids, output = CentroidConfig(config.num_centroids, config.centroid_top_k), Path(config.output)
    write_with_centroids(Path(config.draft_model), output, centroids, config.iterations, config.seed, tell)
    vocab_size = read_drafter_config(output).text.vocab_size
    num_scored = vocab_size // centroids.num_centroids * centroids.top_k
    console.status(
        f"{output}: a draft scores {centroids.num_centroids} centroids and {num_scored} of {vocab_size} tokens"
    )
    return 0
