"""The container, built and run by podman for an ordinary user."""
