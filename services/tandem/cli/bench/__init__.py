"""`tandem bench`: what drafting is worth on this machine, and against transformers on the same pair."""

import argparse
from dataclasses import fields

from tandem.cli.bench.config import BenchConfig
from tandem.cli.bench.preset.config import PresetConfig
from tandem.cli.parser import Parser, add_options, load_config


def configure(parser: Parser) -> None:
    """Adds the command's options."""
    add_options(parser, BenchConfig)
    add_options(
        parser,
        PresetConfig,
        without=[declared.name for declared in fields(BenchConfig)],
        title="networks of a shape, without a checkpoint (on the command line only)",
        has_variables=False,
    )


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints one table; returns 0 whatever the figures are: they are no test."""
    if vars(arguments).get("preset"):
        # Nothing of the environment: what stands in for weights and judge has no variable, for any service to find.
        preset_config = load_config(PresetConfig, arguments, environment={})
        from tandem.cli.bench.preset.command import bench_preset

        return bench_preset(preset_config)
    config = load_config(BenchConfig, arguments)
    from tandem.cli.bench.command import bench

    return bench(config)
