"""A job's life, from its order to its end."""
