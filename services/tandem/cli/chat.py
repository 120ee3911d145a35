"""`tandem chat`: a conversation with the model behind a gateway."""

import argparse
import asyncio
import sys
from contextlib import suppress

from tandem.cli import console
from tandem.cli.client import RequestFailed, open_client
from tandem.cli.client_config import ClientConfig
from tandem.cli.generation_config import GenerationConfig
from tandem.cli.parser import Parser, add_options, load_config
from tandem.cli.spec import add_lists, make_spec
from tandem.cli.token_printer import TokenPrinter
from tandem.v1 import types_pb2

EXIT = "/exit"


def configure(parser: Parser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--system", metavar="TEXT", default="", help="instructions for the whole conversation")
    parser.add_argument(
        "--thinking", choices=["true", "false"], help="whether the model thinks before it answers; none: as it was made"
    )
    add_lists(parser)
    add_options(parser, ClientConfig, GenerationConfig)


def run(arguments: argparse.Namespace) -> int:
    """Talks until `/exit` or the end of the input."""
    config = load_config(GenerationConfig, arguments)
    client_config = load_config(ClientConfig, arguments)
    spec = make_spec(config, arguments)
    if arguments.thinking:
        spec.conversation.thinking = arguments.thinking == "true"
    conversation = Conversation(spec, config.timeout_seconds)
    if arguments.system:
        conversation.say(types_pb2.ROLE_SYSTEM, arguments.system)
    with suppress(ImportError):  # where there is no line editing, there is none
        import readline  # noqa: F401
    console.notice(f"{EXIT} ends the conversation, Ctrl-C an answer")
    with asyncio.Runner() as runner:
        while (text := _read()) is not None:
            if text.strip():
                conversation.say(types_pb2.ROLE_USER, text)
                _answer(runner, client_config, conversation)
    return 0


class Conversation:
    """The turns so far, as the request that asks for the next one."""

    def __init__(self, spec: types_pb2.GenerationSpec, timeout_seconds: float | None) -> None:
        """Starts with no turn; `spec` holds everything but the turns."""
        self._spec = spec
        self._timeout_seconds = timeout_seconds

    def say(self, role: types_pb2.Role.ValueType, text: str) -> None:
        """Adds a turn."""
        self._spec.conversation.messages.add(role=role, text=text)

    async def answer(self, config: ClientConfig, printer: TokenPrinter) -> str:
        """Streams the model's turn and adds it; returns its figures.

        An answer that breaks off stays as far as it came; where nothing came, the question goes too.

        Raises:
            RequestFailed: the answer broke off.
        """
        self._spec.output.token_ids = printer.needs_tokens
        try:
            async with open_client(config) as client:
                return (await client.generate(self._spec, printer.write, self._timeout_seconds)).line()
        finally:
            printer.finish()
            if printer.text:
                self.say(types_pb2.ROLE_MODEL, printer.text)
            else:
                self._spec.conversation.messages.pop()


def _answer(runner: asyncio.Runner, config: ClientConfig, conversation: Conversation) -> None:
    try:
        figures = runner.run(conversation.answer(config, TokenPrinter(sys.stdout)))
        console.notice(console.paint(figures, console.DIM, sys.stderr))
    except RequestFailed as error:
        console.notice(f"error: {error}")
    except KeyboardInterrupt:
        console.notice("cancelled")


def _read() -> str | None:
    """The next line of the user; None when there will be none. Ctrl-C drops the line."""
    while True:
        try:
            text = input("> " if sys.stdin.isatty() else "")
        except KeyboardInterrupt:
            console.notice("")
            continue
        except EOFError:
            return None
        return None if text.strip() == EXIT else text
