"""What a gateway can be told."""

from dataclasses import dataclass

from tandem.core.config import option
from tandem.core.errors import ConfigError
from tandem.rpc.addresses import default_socket, is_local
from tandem.rpc.tls_files import ClientTls, ServerTls


@dataclass(frozen=True)
class GatewayConfig:
    """Settings of one gateway process.

    Raises:
        ConfigError: values that contradict each other, or verifiers that would be reached unprotected.
    """

    tokenizer: str = option(
        help="the target's checkpoint, for its tokenizer and chat template: a folder, or ORGANISATION/NAME@COMMIT"
    )
    listen: str = option("127.0.0.1:8700", help="HOST:PORT or unix:/PATH to serve on; port 0 takes a free one")
    verifier: str = option(
        default_socket("verifier"),
        help="verifiers, with commas between them: unix:/PATH, HOST:PORT, or dns:HOST:PORT for all addresses of HOST",
    )
    verifier_refresh_seconds: float = option(5.0, help="time until the names of dns: verifiers are looked up again")
    resume_seconds: float = option(
        30.0, help="time to find another verifier for a text whose own was lost, where there are several"
    )
    model_name: str = option("", help="name that clients use; empty: the verifier's")
    verifier_ca_file: str = option(
        "", help="authorities (PEM) that the verifiers' certificates come from; empty: no TLS"
    )
    verifier_certificate_file: str = option("", help="certificate chain (PEM) that verifiers are shown")
    verifier_key_file: str = option("", help="key (PEM) of that certificate")
    verifier_tls_name: str = option("", help="name in the verifiers' certificates; empty: the host of their address")
    trust_network: bool = option(False, help="reach verifiers on other machines without TLS: the network is trusted")
    tls_certificate_file: str = option("", help="certificate chain (PEM) to serve with; empty: plain text")
    tls_key_file: str = option("", help="key (PEM) of that certificate")
    tls_client_ca_file: str = option("", help="authorities (PEM) of client certificates, then required; empty: none")
    api_keys_file: str | None = option(
        None,
        help="file with one API key a line, or its sha256:HEX, # for comments; read again when it changes; none: "
        "open to all",
    )
    requests_per_minute: int = option(0, help="most requests of one API key a minute, 0 for no limit")
    tokens_per_minute: int = option(0, help="most tokens, prompts and outputs, of one API key a minute, 0 for no limit")
    streams_per_key: int = option(1024, help="most requests of one API key at a time")
    reflection: bool = option(False, help="tell callers with a key which services and messages there are")
    max_prompt_characters: int = option(2_000_000, help="longest prompt, before it is encoded")
    max_output_tokens: int = option(8192, help="most tokens that one request may generate")
    max_message_bytes: int = option(8 * 1024 * 1024, help="largest request")
    max_concurrent_streams: int = option(256, help="most requests at a time over one connection")
    http_listen: str = option(
        "", help="HOST:PORT to serve OpenAI's HTTP API on besides; port 0 takes a free one; empty: none"
    )
    playground: bool = option(True, help="a page at / of the HTTP port, to try the model on; false: none")
    health_listen: str = option("", help="HOST:PORT that tells health alone, in plain text, for probes; empty: none")
    metrics_listen: str = option("", help="HOST:PORT that shows metrics to Prometheus; empty: none")
    trace_content: bool = option(
        False, help="spans hold prompts and answers too: for debugging, where a trace is as secret as they are"
    )
    drain_seconds: float = option(30.0, help="time for running requests when told to stop")

    def __post_init__(self) -> None:
        """Refuses half a certificate, limits that nobody could call under, and plain text to other machines."""
        ServerTls.from_options(self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file)
        for name in ("requests_per_minute", "tokens_per_minute"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--{name.replace('_', '-')} cannot be negative")
        for name in ("streams_per_key", "max_prompt_characters", "max_message_bytes", "max_concurrent_streams"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")
        if self.verifier_tls is None and not self.trust_network:
            for address in self.verifier.split(","):
                if not is_local(address.strip().removeprefix("dns:")):
                    raise ConfigError(
                        f"--verifier {address.strip()} is on another machine: give --verifier-ca-file, or "
                        "--trust-network where nobody else can listen"
                    )

    @property
    def tls(self) -> ServerTls | None:
        """What clients are shown; None: plain text."""
        return ServerTls.from_options(self.tls_certificate_file, self.tls_key_file, self.tls_client_ca_file)

    @property
    def verifier_tls(self) -> ClientTls | None:
        """What verifiers are shown, and asked to show; None: plain text."""
        return ClientTls.from_options(
            self.verifier_ca_file, self.verifier_certificate_file, self.verifier_key_file, self.verifier_tls_name
        )
