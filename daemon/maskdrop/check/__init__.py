"""``maskdrop check``: decodes every picture below a folder in full, and reports broken ones."""
