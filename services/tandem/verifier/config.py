"""What a verifier can be told."""

import os
from dataclasses import dataclass

from tandem.core.config import option
from tandem.core.draft_position import AT_P, DRAFT_POSITIONS
from tandem.core.errors import ConfigError
from tandem.rpc.addresses import UNIX_PREFIX, default_socket, is_local
from tandem.rpc.tls_files import ServerTls

IN_PROCESS = "inprocess"
NO_DRAFTER = "none"
AS_DTYPE = "dtype"
FP8 = "fp8"
FORMATS = (AS_DTYPE, FP8)
# A row of a step rounds the same beside up to so many; see tests/gpu/test_batch_invariance.py.
BATCH_INVARIANT_ROWS = 128
ROOM_FOR_DRAFTS = 16  # a round, where the drafter says how many it makes


@dataclass(frozen=True)
class VerifierConfig:
    """Settings of one verifier process.

    Raises:
        ConfigError: values that contradict each other.
    """

    target: str = option(help="the target's checkpoint: a folder, or ORGANISATION/NAME@COMMIT on the hub")
    listen: str = option(default_socket("verifier"), help="unix:/PATH or HOST:PORT to serve on")
    trust_network: bool = option(
        False, help="serve whoever reaches a --listen of the network without a client certificate: it is trusted"
    )
    tls_certificate_file: str = option("", help="certificate chain (PEM) to serve with; empty: plain text")
    tls_key_file: str = option("", help="key (PEM) of that certificate")
    tls_client_ca_file: str = option("", help="authorities (PEM) of gateways' certificates, then required; empty: none")
    drafter: str = option(
        default_socket("drafter"),
        help=f"the drafter's socket (unix:/PATH), {IN_PROCESS!r} to draft in this process, or {NO_DRAFTER!r}",
    )
    lookup_drafter: str = option(
        "", help="socket (unix:/PATH) of a drafter that is sent tokens, such as 'tandem lookup-drafter'; empty: none"
    )
    draft_model: str = option("", help=f"the drafter's checkpoint, for --drafter {IN_PROCESS}")
    draft_position: str = option(
        AT_P,
        help=f"position of the drafter's queries with --drafter {IN_PROCESS}: the last token's (p) or the one before",
        choices=DRAFT_POSITIONS,
    )
    model_name: str = option("", help="name of the model; empty: that of the target's folder or repository")
    dtype: str = option("float32", help="number format of weights, activations and KV", choices=["float32", "bfloat16"])
    weights: str = option(
        AS_DTYPE, help=f"number format of the target's projections: that of --dtype, or 8 bits ({FP8})", choices=FORMATS
    )
    kv_dtype: str = option(
        AS_DTYPE, help=f"number format of keys and values: that of --dtype, or 8 bits ({FP8})", choices=FORMATS
    )
    device: str = option("cpu", help="device of the target", choices=["cpu", "cuda"])
    tensor_parallel: int = option(
        1, help="processes that the target is shared by; with --device cuda each has a GPU of its own"
    )
    threads: int = option(0, help="threads of torch on the CPU, in each process; 0: together one a core but one")
    num_speculative_tokens: int | None = option(
        None, help=f"most draft tokens a round (K); none: as many as the drafter makes, up to {ROOM_FOR_DRAFTS}"
    )
    adaptive_k: bool = option(False, help="drafts only as much as pays, at most K; false: always K")
    draft_timeout_ms: float = option(200.0, help="longest wait for a round's drafts")
    max_context: int = option(0, help="most tokens of prompt and output together; 0: as the checkpoint says")
    max_sequences: int = option(32, help="sequences that run at a time")
    max_queue: int = option(256, help="requests that wait for their turn; more are refused")
    max_step_tokens: int = option(512, help="most rows of one forward pass; longer prompts are computed in chunks")
    batch_invariant: bool = option(
        False,
        help=f"steps of at most {BATCH_INVARIANT_ROWS} rows, which round alike whatever else is served; prompts take "
        "longer, and large batches have fewer drafts",
    )
    kv_tokens: int = option(32768, help="tokens that the KV cache holds")
    block_size: int = option(32, help="tokens of a KV block; with --device cuda a multiple of 16, 32 being the fastest")
    prefix_cache: bool = option(True, help="requests that begin alike (and have one cache salt) share KV")
    exchange_directory: str = option("/dev/shm", help="memory-backed folder for what the drafter reads")  # noqa: S108
    health_listen: str = option("", help="HOST:PORT that tells health alone, in plain text, for probes; empty: none")
    metrics_listen: str = option("", help="HOST:PORT that shows metrics to Prometheus; empty: none")
    drain_seconds: float = option(30.0, help="time for running requests when told to stop")

    def __post_init__(self) -> None:
        """Refuses limits that nothing could be served under."""
        for name in ("max_sequences", "max_step_tokens", "kv_tokens", "block_size", "tensor_parallel"):
            _require(getattr(self, name) >= 1, f"--{name.replace('_', '-')} must be at least 1")
        for name in ("threads", "max_context", "max_queue"):
            _require(getattr(self, name) >= 0, f"--{name.replace('_', '-')} cannot be negative")
        _require(0 <= self.max_draft_tokens <= 64, "--num-speculative-tokens must be between 0 and 64")
        _require(
            self.max_step_tokens > self.max_draft_tokens,
            "--max-step-tokens must be above --num-speculative-tokens: a verify has one row more than drafts",
        )
        _require(
            self.device == "cpu" or self.block_size % 16 == 0,
            "--block-size must be a multiple of 16 with --device cuda: attention reads no fewer keys at once",
        )
        _require(
            not self.batch_invariant or self.device == "cpu" or self.dtype == "bfloat16",
            "--batch-invariant needs --dtype bfloat16 on a GPU: products of float32 round by the number of rows",
        )
        _require(
            not self.batch_invariant or self.max_sequences <= BATCH_INVARIANT_ROWS,
            f"--batch-invariant allows --max-sequences of at most {BATCH_INVARIANT_ROWS}: each has a row in a step",
        )
        _require(
            self.drafter in (IN_PROCESS, NO_DRAFTER) or self.drafter.startswith(UNIX_PREFIX),
            f"--drafter must be {UNIX_PREFIX}/PATH, {IN_PROCESS} or {NO_DRAFTER}: the drafter shares this machine",
        )
        _require(
            not self.lookup_drafter or self.lookup_drafter.startswith(UNIX_PREFIX),
            f"--lookup-drafter must be {UNIX_PREFIX}/PATH",
        )
        _require(
            (self.drafter == IN_PROCESS) == bool(self.draft_model),
            f"--draft-model goes with --drafter {IN_PROCESS}, and only with it",
        )
        is_mutual = self.tls is not None and bool(self.tls.client_ca_file)
        _require(
            is_local(self.listen) or is_mutual or self.trust_network,
            f"--listen {self.listen} can be reached from other machines: give --tls-client-ca-file with a "
            "certificate and key, or --trust-network where only gateways reach it",
        )

    @property
    def tls(self) -> ServerTls | None:
        """What gateways are shown; None: plain text."""
        return ServerTls.from_options(self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file)

    @property
    def max_rows(self) -> int:
        """Most rows of one step."""
        return min(self.max_step_tokens, BATCH_INVARIANT_ROWS) if self.batch_invariant else self.max_step_tokens

    @property
    def max_draft_tokens(self) -> int:
        """Most draft tokens a round, whether we or the drafter say how many."""
        if self.num_speculative_tokens is None:
            return min(ROOM_FOR_DRAFTS, self.max_step_tokens - 1)
        return self.num_speculative_tokens


def num_threads(threads: int, num_processes: int = 1) -> int:
    """Threads of torch that a setting asks for, in each of the processes that compute. By default a core is left to
    the drafter, the gateway and this process' event loop: where all cores compute, each product waits for whichever of
    them is disturbed."""
    return threads or max(1, (len(os.sched_getaffinity(0)) - 1) // num_processes)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
