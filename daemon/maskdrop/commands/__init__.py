"""The command line: one module a command. None of them holds more than words, checks and an end."""
