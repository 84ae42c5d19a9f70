"""How object storage is reached: its keys, how long it is waited for, and a connection."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from threading import Lock

from pyarrow import fs

from maskdrop.config_file import fault

_MOST_TRIES = 10

_SCHEMES = ("", "http", "https")
"""Schemes that Arrow knows for an endpoint; "" is taken for https."""

_REQUESTS, _SHARE = 2, 0.8
"""Requests that a picture's stage makes one after the other, and the share of the stage's time that they may
take in all, retries included."""


class Keys:
    """Keys that are never shown. Not a dataclass: Ray Data writes the fields of dataclasses that it is given
    into its log of exported events."""

    __slots__ = ("access", "secret", "session")

    def __init__(self, access: str = "", secret: str = "", session: str = "") -> None:
        self.access, self.secret, self.session = access, secret, session

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keys) and self._all == other._all

    def __hash__(self) -> int:
        return hash(self._all)

    @property
    def _all(self) -> tuple[str, str, str]:
        return self.access, self.secret, self.session


@dataclass(frozen=True)
class Access:
    """How to reach object storage.

    Attributes:
        keys: if empty, each machine finds its own.
        longest: seconds after which a process working at one picture counts as hung.
    """

    endpoint: str = ""
    region: str = ""
    keys: Keys = field(default_factory=Keys)
    longest: float = 120.0

    @classmethod
    def of(cls, environment: Mapping[str, str], endpoint: str | None, longest: float) -> "Access":
        """Read AWS's own variables; a given ``endpoint`` takes precedence over theirs."""
        found = (
            endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
        )
        return cls(
            found,
            environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "",
            Keys(
                environment.get("AWS_ACCESS_KEY_ID", ""),
                environment.get("AWS_SECRET_ACCESS_KEY", ""),
                environment.get("AWS_SESSION_TOKEN", ""),
            ),
            longest,
        )

    def check(self) -> None:
        """Check that the endpoint is a host or an HTTP URL, before any request is sent.

        Raises:
            ConfigurationError: it is neither.
        """
        scheme, _, host = self.endpoint.rpartition("://")
        if scheme not in _SCHEMES or (self.endpoint and not host.strip("/")):
            problem, remedy = "is no URL of an S3 server", "write http://HOST:PORT or https://HOST:PORT"
            raise fault("--endpoint (or AWS_ENDPOINT_URL)", self.endpoint, problem, remedy)

    @property
    def tries(self) -> int:
        """How often a request is tried. The pauses between tries, of up to 1, 2, 4 … seconds (AWS's standard
        mode), take at most half of the request's time."""
        return max(2, min(_MOST_TRIES, 1 + int(math.log2(1 + self._request_s / 2))))

    @property
    def timeout_s(self) -> float:
        """Longest wait for a connection, and for more of an answer, in seconds. The tries share the other
        half of the request's time."""
        return max(1.0, self._request_s / 2 / self.tries)

    @property
    def _request_s(self) -> float:
        return self.longest * _SHARE / _REQUESTS


_ONE_AT_A_TIME = Lock()


def file_system(access: Access, bucket: str) -> fs.S3FileSystem:
    """The process's connection to a bucket. If several threads ask, one makes it and the others wait: a
    second one could only be made once requests under way on the first are over."""
    with _ONE_AT_A_TIME:
        return _connected(access, bucket)


@cache
def _connected(access: Access, bucket: str) -> fs.S3FileSystem:
    options: dict[str, object] = {
        "connect_timeout": access.timeout_s,
        "request_timeout": access.timeout_s,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=access.tries),
    }
    if access.keys.access:
        options["access_key"], options["secret_key"] = access.keys.access, access.keys.secret
        options["session_token"] = access.keys.session or None
    if access.endpoint:
        scheme, _, host = access.endpoint.rpartition("://")
        options["endpoint_override"], options["scheme"] = host.rstrip("/"), scheme or "https"
    region = access.region or ("us-east-1" if access.endpoint else fs.resolve_s3_region(bucket))
    return fs.S3FileSystem(region=region, allow_delayed_open=True, background_writes=False, **options)
