"""Builds the Debian package: maskdrop and all it needs in /opt/maskdrop, units, configuration, user."""

import argparse
import gzip
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from email.utils import formatdate
from pathlib import Path

from maskdrop import __version__
from maskdrop.service.environment import build_wheel, make_environment
from maskdrop.service.layout import ENVIRONMENT

ROOT = Path(__file__).parent.parent
SCRIPTS = ("postinst", "prerm", "postrm")

PLACES = (
    ("systemd/maskdrop.service", "usr/lib/systemd/system/maskdrop.service"),
    ("systemd/maskdrop@.service", "usr/lib/systemd/system/maskdrop@.service"),
    ("systemd/maskdrop.sysusers", "usr/lib/sysusers.d/maskdrop.conf"),
    ("systemd/maskdrop.tmpfiles", "usr/lib/tmpfiles.d/maskdrop.conf"),
    ("systemd/maskdrop.catalog", "usr/lib/systemd/catalog/maskdrop.catalog"),
    ("systemd/maskdrop.logrotate", "etc/logrotate.d/maskdrop"),
    ("etc/maskdrop.toml", "etc/maskdrop.toml"),
    ("README.md", "usr/share/doc/maskdrop/README.md"),
    ("packaging/deb/copyright", "usr/share/doc/maskdrop/copyright"),
)
"""Files of the source tree and their places in the package; missing ones are left out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="folder for the package")
    parser.add_argument(
        "--python",
        type=Path,
        default=Path("/usr/bin/python3"),
        help="the interpreter that the package will use on the machines it is installed on",
    )
    parser.add_argument(
        "--libraries",
        choices=("bundled", "linked"),
        default="bundled",
        help="bundled: torch and all others are in the package. linked: it uses those of the environment "
        "that runs this program, so that it is built in seconds, and is of use on this machine alone",
    )
    parser.add_argument("--compression", default="zstd", help="dpkg-deb's: zstd, xz, gzip or none")
    arguments = parser.parse_args()
    os.umask(0o022)  # whatever the builder's own: users other than root read the installed files
    arguments.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="maskdrop-deb-", dir=arguments.into) as work:
        stage = Path(work) / "stage"
        stage.mkdir(mode=0o755)
        put_environment(stage, Path(work), arguments.python, arguments.libraries)
        put_files(stage)
        put_control(stage, python_version(arguments.python))
        package = arguments.into / f"maskdrop_{__version__}-1_{architecture()}.deb"
        command = ["dpkg-deb", "--root-owner-group", f"-Z{arguments.compression}", "--build", stage, package]
        subprocess.run(command, check=True)


def put_environment(stage: Path, work: Path, python: Path, libraries: str) -> None:
    """Put in the virtual environment, and a link to the command where shells find it."""
    final = ENVIRONMENT
    folder = stage / final.relative_to("/")
    folder.parent.mkdir(parents=True)
    wheel = build_wheel(ROOT, work)
    if libraries == "bundled":
        pinned = ["--constraint", str(ROOT / "constraints.txt")]
        make_environment(folder, final, python, [f"{wheel}[systemd]"], pinned)
    else:
        options = ["--no-deps", "--no-index"]
        make_environment(folder, final, python, [str(wheel)], options, with_pip=False)
        site = next(folder.glob("lib/python3*/site-packages"))
        (site / "libraries-of-the-building-machine.pth").write_text(sysconfig.get_path("purelib") + "\n")
    program = stage / "usr" / "bin" / "maskdrop"
    program.parent.mkdir(parents=True)
    program.symlink_to(f"../..{final}/bin/maskdrop")


def put_files(stage: Path) -> None:
    """Put in units, configuration and documents."""
    documents = sorted(path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md"))
    places = [*PLACES, *((f"docs/{name}", f"usr/share/doc/maskdrop/{name}") for name in documents)]
    for folder in ("systemd/drop-ins", "etc"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.name != "maskdrop.toml":
                relative = path.relative_to((ROOT / folder).parent)
                places.append((str(path.relative_to(ROOT)), f"usr/share/doc/maskdrop/examples/{relative}"))
    for source, target in places:
        if (ROOT / source).is_file():
            put_file(ROOT / source, stage / target, 0o644)
    (stage / "etc" / "maskdrop").mkdir()
    date = formatdate(time.time())
    entry = f"maskdrop ({__version__}-1) unstable; urgency=medium\n\n  * Built from the source tree.\n\n"
    entry += f" -- maskdrop <root@localhost>  {date}\n"
    changelog = stage / "usr" / "share" / "doc" / "maskdrop" / "changelog.Debian.gz"
    changelog.write_bytes(gzip.compress(entry.encode(), mtime=0))
    for made in (path for path in stage.rglob("*") if path.is_dir() and not path.is_symlink()):
        made.chmod(0o755)


def put_control(stage: Path, version: tuple[int, int]) -> None:
    """Put in what dpkg reads: the package's description, its configuration files, and its scripts."""
    source, target = ROOT / "packaging" / "deb", stage / "DEBIAN"
    target.mkdir(mode=0o755)
    major, minor = version
    filled = {
        "VERSION": f"{__version__}-1",
        "ARCHITECTURE": architecture(),
        "SIZE": str(sum(path.lstat().st_size for path in stage.rglob("*")) // 1024),
        "PYTHON": f"{major}.{minor}",
        "NEXT_PYTHON": f"{major}.{minor + 1}",
    }
    text = (source / "control.in").read_text(encoding="utf-8")
    for name, value in filled.items():
        text = text.replace(f"@{name}@", value)
    (target / "control").write_text(text, encoding="utf-8")
    put_file(source / "conffiles", target / "conffiles", 0o644)
    for name in SCRIPTS:
        put_file(source / name, target / name, 0o755)


def put_file(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def architecture() -> str:
    command = ["dpkg", "--print-architecture"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def python_version(python: Path) -> tuple[int, int]:
    program = "import sys; print(*sys.version_info[:2])"
    answer = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True)
    major, minor = answer.stdout.split()
    return int(major), int(minor)


if __name__ == "__main__":
    main()
