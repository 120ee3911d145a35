"""A rank of the target under measurement: that of a verifier, but with random weights."""

from tandem.models.gemma4.random_weights import RandomWeights
from tandem.verifier.rank_process import run

if __name__ == "__main__":
    run(lambda config: RandomWeights(config.device))
