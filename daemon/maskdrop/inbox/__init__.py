"""The inbox: the durable queue. Everything the daemon knows of it can be read again from the folder."""
