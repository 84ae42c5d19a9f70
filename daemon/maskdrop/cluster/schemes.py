"""The scheme of places in object storage, and how those of other URLs are refused."""

import re

from maskdrop.config_file import fault

SCHEME = "s3://"

_ANY = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
"""The beginning of a URL (RFC 3986, section 3.1)."""

_REMEDY = f"write {SCHEME}BUCKET/PREFIX in small letters, or ./NAME of a folder that is called so"

FOREIGN_LINE_REMEDY = f"write {SCHEME}BUCKET/KEY in small letters, or ./NAME of a file that is called so"


def foreign_scheme(named: str) -> str:
    """The scheme of a place that is another kind of URL, and no folder; "": it is none."""
    found = _ANY.match(named)
    return found[0] if found is not None and found[0] != SCHEME else ""


def check_scheme(name: str, named: str) -> None:
    """Check that a place is no URL of another kind.

    Args:
        name: of the word or setting that names the place.

    Raises:
        ConfigurationError: it is one.
    """
    if scheme := foreign_scheme(named):
        raise fault(name, named, f"nothing can be read or written by {scheme}", _REMEDY)
