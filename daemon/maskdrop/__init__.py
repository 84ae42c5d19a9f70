"""maskdrop: drop a photograph into a folder, get the face cut out."""

__version__ = "0.1.0"
