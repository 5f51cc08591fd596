"""Worlds in which the rules are asked of the code itself, over random schedules."""
