"""Semantic match: embedder."""
