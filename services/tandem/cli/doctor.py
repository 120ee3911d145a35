"""`tandem doctor`: whether Tandem can run here, and whether a gateway does."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from tandem.cli import console
from tandem.cli.client import RequestFailed, open_client
from tandem.cli.client_config import ClientConfig
from tandem.cli.machine_checks import Check, Verdict, check_machine
from tandem.cli.parser import Parser, add_options, load_config
from tandem.cli.plan import memory_directory
from tandem.cli.up_config import UpConfig
from tandem.core.config import ENVIRONMENT_PREFIX

_COLOURS = {Verdict.OK: console.GREEN, Verdict.WARN: console.YELLOW, Verdict.FAIL: console.RED}


def configure(parser: Parser) -> None:
    """Adds the command's options."""
    parser.add_argument("--exchange-directory", metavar="TEXT", default=argparse.SUPPRESS, help="as of 'tandem up'")
    add_options(parser, ClientConfig, UpConfig)


def run(arguments: argparse.Namespace) -> int:
    """Prints a table; returns 1 if a check failed."""
    up = load_config(UpConfig, arguments)
    client = load_config(ClientConfig, arguments)
    # A gateway is missed only by who said where it is.
    is_expected = "server" in vars(arguments) or f"{ENVIRONMENT_PREFIX}SERVER" in os.environ
    draft_model = Path(up.draft_model_in_force) if up.draft_model_in_force else None
    has_failed = False
    for check in check_machine(Path(up.target), draft_model, memory_directory(arguments, up)):
        has_failed |= _show(check)
    for check in asyncio.run(_check_server(client, is_expected)):
        has_failed |= _show(check)
    return 1 if has_failed else 0


async def _check_server(config: ClientConfig, is_expected: bool) -> list[Check]:
    """The gateway, and behind it the model and its drafter."""
    async with open_client(config) as client:
        try:
            is_serving = await client.is_serving()
        except RequestFailed:
            verdict = Verdict.FAIL if is_expected else Verdict.WARN
            return [Check("gateway", verdict, f"none at {config.server}", "start one with 'tandem up'")]
        if not is_serving:
            found = f"{config.server} is not serving"
            return [Check("gateway", Verdict.FAIL, found, "its verifier is loading or gone: look at its log")]
        gateway = Check("gateway", Verdict.OK, f"{config.server} serves")
        try:
            model = await client.model()
        except RequestFailed as error:
            return [gateway, Check("model", Verdict.FAIL, str(error), "is --api-key-file needed?")]
    found = f"{model.name}, {model.dtype}, context of {model.context_length} tokens"
    checks = [gateway, Check("model", Verdict.OK, found)]
    if model.HasField("drafter"):
        found = f"{model.drafter.name}, K = {model.drafter.num_speculative_tokens}"
        return [*checks, Check("drafter", Verdict.OK, found)]
    return [*checks, Check("drafter", Verdict.WARN, "none attached", "text comes without speculation")]


def _show(check: Check) -> bool:
    verdict = console.paint(f"{check.verdict.value:<4}", _COLOURS[check.verdict], sys.stdout)
    advice = f" -> {check.advice}" if check.advice else ""
    console.status(f"{verdict}  {check.name:<13}  {check.found}{advice}")
    return check.verdict is Verdict.FAIL
