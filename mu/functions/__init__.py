"""Functions on Lambda: their zips, deploying them, and the permissions they need."""
