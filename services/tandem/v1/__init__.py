"""Generated stubs of the public contract, protos/tandem/v1."""
