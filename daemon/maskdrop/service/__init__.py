"""maskdrop as a systemd service: what belongs where; installing, removing and showing it."""
