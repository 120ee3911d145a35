"""The `tandem` command: one file a subcommand, and nothing heavy imported before a subcommand needs it."""
