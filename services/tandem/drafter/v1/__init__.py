"""Generated stubs of protos/tandem/drafter/v1: verifier to drafter."""
