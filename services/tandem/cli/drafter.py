"""`tandem drafter`: one drafter in this process."""

import argparse

from tandem.cli.parser import Parser, add_options, load_config
from tandem.cli.service import run_service
from tandem.drafter.config import DrafterConfig
from tandem.telemetry.logs import LogConfig


def configure(parser: Parser) -> None:
    """Adds the command's options."""
    add_options(parser, DrafterConfig, LogConfig)


def run(arguments: argparse.Namespace) -> int:
    """Serves until told to stop."""
    config = load_config(DrafterConfig, arguments)
    log_config = load_config(LogConfig, arguments)
    from tandem.drafter.service import run

    return run_service("drafter", log_config, run(config))
