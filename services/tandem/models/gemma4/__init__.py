"""Gemma 4's text decoder and its MTP drafter."""
