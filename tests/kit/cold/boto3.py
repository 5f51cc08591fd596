"""Comes before boto3 in engines whose functions do not need it: importing it takes half a second."""

raise ImportError("kit/local.py starts this engine without boto3")
