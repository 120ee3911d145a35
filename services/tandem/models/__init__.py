"""Inference-only networks: one package a model family."""
