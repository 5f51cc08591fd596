"""The commands' output, made with rich. Imported only when there is something to print."""
