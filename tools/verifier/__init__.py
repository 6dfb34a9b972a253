"""The verifier's making: its training pairs and its training."""
