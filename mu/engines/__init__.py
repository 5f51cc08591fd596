"""Engines: what turns a launch into running workers."""
