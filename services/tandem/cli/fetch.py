"""`tandem fetch`: brings checkpoints into the hub's cache, for services that then start without a network."""

import argparse

from tandem.cli import console
from tandem.cli.fetch_config import FetchConfig
from tandem.cli.parser import Parser, add_options, load_config
from tandem.models.checkpoint import Part, open_checkpoint


def configure(parser: Parser) -> None:
    """Adds the command's options."""
    add_options(parser, FetchConfig)


def run(arguments: argparse.Namespace) -> int:
    """Downloads what is missing; a folder is taken as it is."""
    config = load_config(FetchConfig, arguments)
    wanted = ((config.target, Part.MODEL), (config.draft_model, Part.MODEL), (config.tokenizer, Part.TEXT))
    for reference, part in wanted:
        if reference:
            console.status(f"{reference} is in {open_checkpoint(reference, part).folder}")
    return 0
