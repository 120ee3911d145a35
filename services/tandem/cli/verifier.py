"""`tandem verifier`: one verifier in this process."""

import argparse

from tandem.cli.parser import Parser, add_options, load_config
from tandem.cli.service import run_service
from tandem.telemetry.logs import LogConfig
from tandem.verifier.config import VerifierConfig


def configure(parser: Parser) -> None:
    """Adds the command's options."""
    add_options(parser, VerifierConfig, LogConfig)


def run(arguments: argparse.Namespace) -> int:
    """Serves until told to stop."""
    config = load_config(VerifierConfig, arguments)
    log_config = load_config(LogConfig, arguments)
    from tandem.verifier.service import run

    return run_service("verifier", log_config, run(config))
