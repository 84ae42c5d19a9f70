"""maskdrop as a systemd service: what belongs where, put there, taken away, shown."""
