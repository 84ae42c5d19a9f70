"""The static page: HTML with its own style and script inside, and nothing from elsewhere.

Names and reasons come from outside, so each is escaped here, and the page's policy lets no script run but
the one whose hash it names.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from maskdrop import __version__

GENERATOR = "maskdrop sheet"
"""Stands in a page's head, which shows that the page is ours."""


@dataclass(frozen=True)
class Card:
    """What the page shows of one picture: plain text, not escaped.

    Attributes:
        remark: when, and the picture's SHA-256 or size.
        why: the reason; "" for a picture that is saved.
        images: files, relative to the page, by what they show.
    """

    name: str
    remark: str
    why: str
    images: Mapping[str, str]


def page(title: str, cards: Iterable[Card], kinds: Iterable[str]) -> str:
    """The whole page."""
    style, script = _own("page.css"), _own("page.js")
    policy = f"default-src 'none'; img-src 'self' file:; style-src {_hash(style)}"
    policy += f"; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    boxes = "".join(
        f'<label><input type="checkbox" name="kind" value="{_safe(kind)}" checked> {_safe(kind)}</label>'
        for kind in kinds
    )
    body = "\n".join(_card(card) for card in cards)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_safe(policy)}">
<meta name="generator" content="{GENERATOR} {__version__}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_safe(title)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{_safe(title)}</h1><span id="shown"></span>
<form hidden>
<input type="search" name="text" placeholder="name, reason" aria-label="Filter by name or reason">
<select name="state" aria-label="Which">
<option value="all">all</option><option value="saved">saved</option>
<option value="broken">quarantined</option>
</select>
{boxes}
<label>size <input type="range" name="side" min="80" max="512" step="8" value="128"></label>
</form></header>
<main>
{body}
</main>
<dialog aria-label="Closer look"><div class="bar"><span></span>
<button value="ArrowLeft">←</button><button value="ArrowRight">→</button>
<button value="-">−</button><button value="+">+</button><button value="">close</button></div>
<div class="stage"><img alt=""></div></dialog>
<script>{script}</script>
</body>
</html>
"""


def _card(card: Card) -> str:
    state = "broken" if card.why else "saved"
    why = f'<p class="why">{_safe(card.why)}</p>' if card.why else ""
    figures = "".join(
        f'<figure data-kind="{_safe(kind)}"><a href="{_safe(file)}">'
        f'<img loading="lazy" src="{_safe(file)}" alt="{_safe(card.name)}: {_safe(kind)}"></a>'
        f"<figcaption>{_safe(kind)}</figcaption></figure>"
        for kind, file in card.images.items()
    )
    strip = f'<div class="strip">{figures}</div>' if figures else ""
    head = f"<h2>{_safe(card.name)}</h2><p>{_safe(card.remark)}</p>"
    return f'<article class="{state}">{head}{why}{strip}</article>'


def _own(name: str) -> str:
    return (files("maskdrop.sheet") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _safe(text: str) -> str:
    """Text as HTML: markup is shown as it is, and what isn't UTF-8 as backslash escapes."""
    return escape(text.encode("utf-8", "backslashreplace").decode(), quote=True)
