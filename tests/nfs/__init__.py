"""Two hosts with an NFS disk between them, in a user-mode Linux kernel."""
