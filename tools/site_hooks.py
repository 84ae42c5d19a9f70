"""For MkDocs (`hooks` in mkdocs.yml): makes what is right in the repository right on the site.

Links out of docs/ lead to copies of their files. A file that such a link names must exist, or the build
fails. And in tables, GitHub wants a bar in code written with a backslash, which MkDocs would show.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent

_OUT = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)\)")
_CODE_WITH_BAR = re.compile(r"`[^`\n]*\\\|[^`\n]*`")
_COPIES = "repository"


def on_files(files: Files, *, config: Any) -> Files:
    """Add a copy of each file that a link out of docs/ names."""
    wanted = set()
    for page in files.documentation_pages():
        wanted |= {_target(page.src_uri, link) for link in _OUT.findall(page.content_string)}
    for target in sorted(filter(None, wanted)):
        if not (ROOT / target).is_file():
            raise PluginError(f"a link out of docs/ leads to {target}, which is no file")
        files.append(File.generated(config, f"{_COPIES}/{target}", abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Point the links to the copies, and remove backslashes before bars in code."""

    def to_copy(match: re.Match[str]) -> str:
        target = _target(page.file.src_uri, match[1])
        if target is None:
            return match[0]
        return f"]({relpath(f'{_COPIES}/{target}', str(PurePosixPath(page.file.src_uri).parent))})"

    return _OUT.sub(to_copy, _CODE_WITH_BAR.sub(lambda code: code[0].replace("\\|", "|"), markdown))


def _target(page: str, link: str) -> str | None:
    """The file in the repository that a link names; None where the link stays in docs/."""
    whole = normpath(str(PurePosixPath("docs", page).parent / link))
    return None if whole.startswith("docs/") else whole
