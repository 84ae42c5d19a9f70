"""What a configuration names beside folders: a file of weights, a port."""

import errno

from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError, check_weights
from maskdrop.doctor.finding import Finding, fail, ok, warning


def check_weights_file(settings: Settings) -> Finding:
    """Whether this user may read the weights; their content is left for an inference worker to check."""
    weights = settings.model.weights
    try:
        check_weights(weights)
    except ConfigurationError as error:
        return fail("weights", error.problem, error.remedy)
    return ok("weights", "the embedded ones" if weights is None else f"{weights} can be read")


def check_metrics_port(settings: Settings) -> list[Finding]:
    """Whether the port can be listened on; if it is in use, the daemon itself may have it."""
    port = settings.metrics.port
    if port is None:
        return []
    from maskdrop.health.metrics import check_port  # here, because most daemons never need the library

    try:
        check_port(port)
    except ConfigurationError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE:
            return [warning("metrics port", error.problem, f"unless a daemon has it: {error.remedy}")]
        return [fail("metrics port", error.problem, error.remedy)]
    return [ok("metrics port", f"{port} is free")]
