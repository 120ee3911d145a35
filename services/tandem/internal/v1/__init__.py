"""Generated stubs of protos/tandem/internal/v1: gateway to verifier."""
