"""What the actors of a job did, and when, from the job's records; and drawings of it. Pure."""
