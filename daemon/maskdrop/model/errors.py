"""Why a network can't be used."""


class WeightsError(Exception):
    """The weights can't be used; the message says what is wrong and what to do."""


def first_line(error: Exception) -> str:
    """What an error says, on one line of at most 200 characters."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
