"""Semantic match: what was asked before in other words; and the embedder of `/v1/embeddings`."""
