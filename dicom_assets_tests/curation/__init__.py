"""Tests of what the data say between them."""
