"""Every configuration class that there is: what may be set in the environment."""

from tandem.cli.bench.config import BenchConfig
from tandem.cli.centroids_config import CentroidsConfig
from tandem.cli.client_config import ClientConfig
from tandem.cli.fetch_config import FetchConfig
from tandem.cli.generation_config import GenerationConfig
from tandem.cli.up_config import UpConfig
from tandem.drafter.config import DrafterConfig
from tandem.drafter.lookup_config import LookupConfig
from tandem.gateway.config import GatewayConfig
from tandem.telemetry.logs import LogConfig
from tandem.verifier.config import VerifierConfig

CONFIGS: tuple[type, ...] = (
    GatewayConfig,
    VerifierConfig,
    DrafterConfig,
    LookupConfig,
    UpConfig,
    FetchConfig,
    ClientConfig,
    GenerationConfig,
    LogConfig,
    BenchConfig,
    CentroidsConfig,
)
