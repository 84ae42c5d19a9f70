"""``maskdrop check``: every picture below a folder decoded in full, and what is broken told."""
