"""Two pipelines for mu that count words."""
