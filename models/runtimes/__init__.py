"""Runtimes: they execute a network."""
