"""How many files the workers of pipelines copy at the same time."""

AT_ONCE = 8
"""A worker copies that many files at a time; further ones would wait in it."""
