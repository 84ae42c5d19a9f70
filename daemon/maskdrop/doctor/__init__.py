"""``maskdrop doctor``: whether machine and folders are fit for the daemon, and what to do if not."""
