"""Benchmarks: each a ratio against a baseline that is measured in the same run. Not part of the installed package."""
