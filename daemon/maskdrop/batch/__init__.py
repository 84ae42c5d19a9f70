"""One folder of pictures, done once by the daemon's own workers."""
