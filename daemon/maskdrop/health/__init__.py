"""What the daemon tells of itself, and those who read it: people, monitoring, Prometheus."""
