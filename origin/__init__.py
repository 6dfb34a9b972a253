"""The origin: exact match in Redis, semantic match, then a model or an upstream API."""
