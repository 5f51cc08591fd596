"""The command line `mu`: starts jobs through the daemon's control port and shows their progress."""
