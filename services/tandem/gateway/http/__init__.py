"""The gateway's second door: HTTP as OpenAI's clients speak it, onto the same answers as gRPC."""
