"""Tandem: lossless speculative serving of Gemma 4 with its MTP drafters."""

__version__ = "0.1.0"
