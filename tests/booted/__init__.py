"""maskdrop as a service of a real systemd: a Debian tree, a machine booted in it, and the service there."""
