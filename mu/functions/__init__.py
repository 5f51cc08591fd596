"""From a program to a function."""
