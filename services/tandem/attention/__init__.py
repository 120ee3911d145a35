"""Attention over the paged KV cache: what a step asks, and the backends that answer."""
