"""Generated stubs of the contracts between services."""
