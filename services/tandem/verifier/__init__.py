"""The verifier: the target, its KV cache, and the engine behind a gRPC service."""
