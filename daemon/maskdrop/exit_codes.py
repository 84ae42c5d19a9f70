"""Exit codes of maskdrop's processes; 71, 75 and 78 are those of sysexits.h."""

EX_OK = 0
"""Everything asked for was done."""

EX_FAILED = 1
"""A command failed."""

EX_CUT_SHORT = 1
"""The daemon ended before everything in flight was finished."""

EX_USAGE = 2
"""The command line can't be understood."""

EX_OUT_OF_MEMORY = 71
"""A worker ran out of memory."""

EX_TEMPFAIL = 75
"""Another daemon has the inbox, or another batch the outbox; there is no room for a folder or for temporary
files; or a batch on a cluster did not get to its end: try again later."""

EX_CONFIG = 78
"""Can't run as configured: trying again would change nothing."""

SIGNAL_EXIT = 128
"""What a shell adds to a signal's number to make an exit code (bash(1))."""
