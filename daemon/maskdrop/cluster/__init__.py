"""A batch on many machines: the daemon's own stages as tasks and actors of Ray Data."""
