"""What keeps a benchmark from its figures."""

from tandem.core.errors import TandemError


class MeasurementFailed(TandemError):
    """What was to be measured did not happen; figures would be of something else."""
