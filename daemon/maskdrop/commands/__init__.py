"""The command line: one module for each command, with its options, checks and exit codes, and no more."""
