"""The face-parsing model: its network, its weights and how it is run.

Nothing outside this package knows what the network looks like.
"""
