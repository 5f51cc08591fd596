"""What the commands of jobs print: kept in files that a person can read and search."""
