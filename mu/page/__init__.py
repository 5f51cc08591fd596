"""The page at the control port: its files, and the events that keep it up to date."""
