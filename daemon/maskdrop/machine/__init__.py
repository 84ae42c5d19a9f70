"""What this machine gives a process, and what limits it."""
