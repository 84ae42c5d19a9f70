"""A load of pictures, a killer, and an auditor who trusts nobody."""
