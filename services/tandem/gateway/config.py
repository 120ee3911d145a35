"""What a gateway can be told."""

from dataclasses import dataclass

from tandem.core.config import option
from tandem.rpc.addresses import default_socket


@dataclass(frozen=True)
class GatewayConfig:
    """Settings of one gateway process."""

    tokenizer: str = option(
        help="the target's checkpoint, for its tokenizer and chat template: a folder, or ORGANISATION/NAME@COMMIT"
    )
    listen: str = option("127.0.0.1:8700", help="HOST:PORT or unix:/PATH to serve on; port 0 takes a free one")
    verifier: str = option(default_socket("verifier"), help="address of the verifier: unix:/PATH or HOST:PORT")
    model_name: str = option("", help="name that clients use; empty: the verifier's")
    api_keys_file: str | None = option(None, help="file with one API key a line, # for comments; none: open to all")
    requests_per_minute: int = option(0, help="most requests of one API key a minute, 0 for no limit")
    max_prompt_characters: int = option(2_000_000, help="longest prompt, before it is encoded")
    max_output_tokens: int = option(8192, help="most tokens that one request may generate")
    max_message_bytes: int = option(8 * 1024 * 1024, help="largest request")
    max_concurrent_streams: int = option(256, help="most requests at a time over one connection")
    metrics_listen: str = option("", help="HOST:PORT that shows metrics to Prometheus; empty: none")
    trace_content: bool = option(
        False, help="spans hold prompts and answers too: for debugging, where a trace is as secret as they are"
    )
    drain_seconds: float = option(30.0, help="time for running requests when told to stop")
