"""What the daemon reports about itself, for those who read it: people, monitoring, Prometheus."""
