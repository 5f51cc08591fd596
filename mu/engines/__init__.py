"""Engines start workers: mu.engines.lambda_api on AWS, mu.engines.local on this machine."""
