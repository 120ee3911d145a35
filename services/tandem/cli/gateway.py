"""`tandem gateway`: one gateway in this process."""

import argparse

from tandem.cli.parser import Parser, add_options, load_config
from tandem.cli.service import run_service
from tandem.gateway.config import GatewayConfig
from tandem.telemetry.logs import LogConfig


def configure(parser: Parser) -> None:
    """Adds the command's options."""
    add_options(parser, GatewayConfig, LogConfig)


def run(arguments: argparse.Namespace) -> int:
    """Serves until told to stop."""
    config = load_config(GatewayConfig, arguments)
    log_config = load_config(LogConfig, arguments)
    from tandem.gateway.service import run

    return run_service("gateway", log_config, run(config))
