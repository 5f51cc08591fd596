"""What the commands print, made with rich: imported only when there is something to print."""
