"""The entry: finds the subcommand, runs it, and turns what goes wrong into one line and an exit code."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from tandem import __version__
from tandem.cli.parser import BAD_USAGE, Parser
from tandem.cli.settings import CONFIGS
from tandem.core.config import refuse_unknown
from tandem.core.errors import ConfigError, TandemError

FAILED = 1
INTERRUPTED = 130  # as shells say of a process that SIGINT ended

# Subcommand to its one line of help. The module of that name under tandem.cli, dashes as underscores, is imported when
# it is asked for.
COMMANDS = {
    "up": "serve: gateway, verifier and drafter on this machine",
    "demo": "serve the demo pair, stream a completion, compare with and without drafter",
    "generate": "continue a prompt, streaming",
    "chat": "talk with the model",
    "bench": "measure the demo pair: speed with and without drafter, acceptance, the gateway's cost",
    "doctor": "check this machine and a running gateway",
    "gateway": "run one gateway",
    "verifier": "run one verifier",
    "drafter": "run one drafter",
    "lookup-drafter": "run one drafter that needs no model: it looks up what followed before",
    "fetch": "bring checkpoints from the hub into its cache",
    "build-centroids": "give a drafter a head that scores a few clusters of tokens instead of all",
}


class Command(Protocol):
    """What the module of a subcommand offers."""

    configure: Callable[[Parser], None]  # adds its arguments
    run: Callable[..., int]  # given the parsed arguments; returns the exit code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tandem`; returns its exit code."""
    # grpc's own chatter is not for users; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    argv = sys.argv[1:] if argv is None else argv
    parser = Parser(prog="tandem", description="Lossless speculative serving of Gemma 4, over gRPC.")
    parser.add_argument("--version", action="version", version=f"tandem {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    subparser_of = {
        name: subparsers.add_parser(
            name, help=line, usage="%(prog)s [OPTION ...]", description=f"{line[0].upper()}{line[1:]}."
        )
        for name, line in COMMANDS.items()
    }
    chosen = argv[0] if argv else ""
    if chosen not in COMMANDS:
        parser.parse_args(argv)  # shows help or version, or complains
        return 0
    command = cast(Command, importlib.import_module(f"tandem.cli.{chosen.replace('-', '_')}"))
    command.configure(subparser_of[chosen])
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        subparser_of[chosen].error(f"unknown argument {unknown[0]}")
    return run_command(f"tandem {chosen}", lambda: _checked(command).run(arguments))


def run_command(name: str, run: Callable[[], int]) -> int:
    """Runs `run`; says what went wrong in one line that begins with `name`, and returns the exit code."""
    try:
        return run()
    except ConfigError as error:
        return _fail(name, str(error), BAD_USAGE)
    except TandemError as error:
        return _fail(name, str(error), FAILED)
    except ModuleNotFoundError as error:
        # A gateway is installed without torch.
        return _fail(name, f"{error.name} is not installed; the extras 'gateway' and 'engine' bring all", BAD_USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left. Nothing can be told to them, nor written when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _fail(name, f"{type(error).__name__}: {error}", FAILED)


def _checked(command: Command) -> Command:
    refuse_unknown(os.environ, CONFIGS)
    return command


def _fail(name: str, message: str, code: int) -> int:
    print(f"{name}: error: {' '.join(message.split())}", file=sys.stderr)
    return code
