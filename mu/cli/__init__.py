"""The command line `mu`: orders jobs at the control port and shows what becomes of them."""
