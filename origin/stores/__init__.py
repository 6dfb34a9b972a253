"""Where envelopes are kept at the origin: the contract, Redis, and a test double in memory."""
