"""`tandem generate`: a prompt's continuation, streamed from a gateway."""

import argparse
import asyncio
import sys

from tandem.cli import console
from tandem.cli.client import open_client
from tandem.cli.client_config import ClientConfig
from tandem.cli.figures import Figures
from tandem.cli.generation_config import GenerationConfig
from tandem.cli.parser import Parser, add_options, load_config
from tandem.cli.spec import add_lists, make_spec
from tandem.cli.token_printer import DRAFTED, TokenPrinter
from tandem.v1 import types_pb2

STDIN = "-"


def configure(parser: Parser) -> None:
    """Adds the command's arguments."""
    parser.usage = "%(prog)s [OPTION ...] PROMPT"
    parser.add_argument("prompt", metavar="PROMPT", help=f"text to continue; {STDIN} reads it from stdin")
    parser.add_argument("--request-id", metavar="TEXT", default="", help="names the request in the server's logs")
    add_lists(parser)
    add_options(parser, ClientConfig, GenerationConfig)


def run(arguments: argparse.Namespace) -> int:
    """Writes the text to stdout and its figures to stderr."""
    config = load_config(GenerationConfig, arguments)
    spec = make_spec(config, arguments)
    spec.text = sys.stdin.read() if arguments.prompt == STDIN else arguments.prompt
    spec.request_id = arguments.request_id
    printer = TokenPrinter(sys.stdout)
    figures = asyncio.run(_generate(load_config(ClientConfig, arguments), spec, printer, config.timeout_seconds))
    legend = f" ({console.paint('accepted drafts', DRAFTED, sys.stderr)})" if printer.needs_tokens else ""
    console.notice(figures.line() + legend)
    return 0


async def _generate(
    config: ClientConfig, spec: types_pb2.GenerationSpec, printer: TokenPrinter, timeout_seconds: float | None
) -> Figures:
    spec.output.token_ids = printer.needs_tokens
    async with open_client(config) as client:
        try:
            return await client.generate(spec, printer.write, timeout_seconds)
        finally:
            printer.finish()
