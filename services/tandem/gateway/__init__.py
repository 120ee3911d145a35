"""The public gRPC API: text in, text out. Knows tokenizers and no torch; a verifier does the generating."""
