"""What answers a miss: a local transformers model, or an OpenAI-compatible upstream."""
