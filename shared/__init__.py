"""The sans-IO core that edge and origin both import.

Standard library only; no clock, no randomness, no await. Everything here is a function of its
arguments, so that the same vectors give the same bytes on CPython and on Pyodide.
"""
