"""The last results on one page, with what they were made from."""
