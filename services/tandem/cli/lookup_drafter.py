"""`tandem lookup-drafter`: one lookup drafter in this process."""

import argparse

from tandem.cli.parser import Parser, add_options, load_config
from tandem.cli.service import run_service
from tandem.drafter.lookup_config import LookupConfig
from tandem.telemetry.logs import LogConfig


def configure(parser: Parser) -> None:
    """Adds the command's options."""
    add_options(parser, LookupConfig, LogConfig)


def run(arguments: argparse.Namespace) -> int:
    """Serves until told to stop."""
    config = load_config(LookupConfig, arguments)
    log_config = load_config(LogConfig, arguments)
    from tandem.drafter.lookup_service import run

    return run_service("lookup-drafter", log_config, run(config))
