"""From command-line options to the request's `GenerationSpec`."""

import argparse
from pathlib import Path

from tandem.cli.generation_config import GenerationConfig
from tandem.cli.parser import Parser
from tandem.core.errors import ConfigError
from tandem.v1 import types_pb2


def add_lists(parser: Parser) -> None:
    """Adds the options that may be given several times; the environment has no word for those."""
    group = parser.add_argument_group("may be given several times")
    group.add_argument("--stop", metavar="TEXT", action="append", default=[], help="text that ends the output")
    group.add_argument(
        "--stop-token-id", metavar="ID", type=int, action="append", default=[], help="token that ends the output"
    )
    group.add_argument(
        "--logit-bias",
        metavar="ID=NUMBER",
        type=_bias,
        action="append",
        default=[],
        help="added to the logit of a token",
    )


def make_spec(config: GenerationConfig, lists: argparse.Namespace) -> types_pb2.GenerationSpec:
    """Everything of a request but its prompt.

    Raises:
        ConfigError: a number that no message can carry, or a file that cannot be read. All other bounds are the
            server's to know.
    """
    try:
        return types_pb2.GenerationSpec(
            model=config.model,
            cache_salt=config.cache_salt,
            sampling=types_pb2.SamplingOptions(
                temperature=config.temperature,
                top_p=config.top_p,
                top_k=config.top_k,
                min_p=config.min_p,
                seed=config.seed,
                repetition_penalty=config.repetition_penalty,
                presence_penalty=config.presence_penalty,
                frequency_penalty=config.frequency_penalty,
                logit_bias=dict(lists.logit_bias),
            ),
            stopping=types_pb2.StoppingOptions(
                max_tokens=config.max_tokens,
                min_tokens=config.min_tokens,
                stop=lists.stop,
                stop_token_ids=lists.stop_token_id,
                ignore_eos=config.ignore_eos,
                include_stop=config.include_stop,
            ),
            speculation=types_pb2.SpeculationOptions(num_speculative_tokens=config.num_speculative_tokens),
            output_format=_output_format(config),
        )
    except ValueError as error:
        raise ConfigError(f"a number is out of range: {error}") from None


def _output_format(config: GenerationConfig) -> types_pb2.OutputFormat | None:
    given = [name for name in ("json_schema", "regex", "grammar") if getattr(config, name)]
    if len(given) > 1:
        raise ConfigError("--json-schema, --regex and --grammar exclude each other")
    if config.json_schema:
        return types_pb2.OutputFormat(json_schema=_read(config.json_schema, "--json-schema"))
    if config.grammar:
        return types_pb2.OutputFormat(grammar=_read(config.grammar, "--grammar"))
    return types_pb2.OutputFormat(regex=config.regex) if config.regex else None


def _read(path: str, option: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{option} {path}: not UTF-8 text") from None


def _bias(text: str) -> tuple[int, float]:
    token_id, _, bias = text.partition("=")
    return int(token_id), float(bias)
