"""The Debian package: built, installed, upgraded and purged in a scratch root, by dpkg itself."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ("postinst", "prerm", "postrm")

pytestmark = [
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb here: apt-get install dpkg"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may install packages"),
]


class Scratch:
    """An empty root with dpkg's own files in it. Maintainer scripts run outside of it, with DPKG_ROOT set."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc", "opt"):
            (root / folder).mkdir(parents=True)
        for file in ("status", "available"):
            (root / "var/lib/dpkg" / file).touch()
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")

    def dpkg(self, *arguments: object) -> str:
        options = [
            "--force-script-chrootless",
            "--force-depends",
            "--force-unsafe-io",
            f"--log={self.root}/dpkg.log",
        ]
        command = ["dpkg", f"--root={self.root}", *options, *map(str, arguments)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Built as `make deb DEB_LIBRARIES=linked` builds it: torch and the others stay where they are."""
    command = [sys.executable, str(ROOT / "tools" / "make_deb.py"), "--into", str(tmp_path / "dist")]
    options = ["--python", sys.executable, "--libraries", "linked", "--compression", "none"]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL, umask=0o077)
    (package,) = (tmp_path / "dist").iterdir()
    return package


def test_a_package_comes_and_goes_without_touching_pictures(package: Path, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "root")
    root = scratch.root
    scratch.dpkg("--install", package)
    assert "Status: install ok installed" in scratch.dpkg("--status", "maskdrop")
    assert (root / "usr/lib/systemd/system/maskdrop.service").read_bytes() == (
        ROOT / "systemd/maskdrop.service"
    ).read_bytes()
    assert (root / "usr/lib/systemd/system/maskdrop@.service").is_file()
    assert (root / "etc/systemd/system/multi-user.target.wants/maskdrop.service").is_symlink()
    assert (root / "etc/maskdrop.toml").read_bytes() == (ROOT / "etc/maskdrop.toml").read_bytes()
    assert "maskdrop:" in (root / "etc/passwd").read_text()
    closed = {path for path in (root / "opt").rglob("*") if path.lstat().st_mode & 0o044 != 0o044}
    assert not closed, "not to be read by the service, of whoever had another umask when it was built"
    inbox = (root / "var/lib/maskdrop/inbox").stat()
    assert stat.S_IMODE(inbox.st_mode) == 0o2770
    assert inbox.st_uid != 0
    assert (root / "usr/bin/maskdrop").readlink() == Path("../../opt/maskdrop/bin/maskdrop")
    assert (root / "opt/maskdrop/bin/maskdrop").read_text().startswith("#!/opt/maskdrop/bin/python")

    run = [f"{root}/opt/maskdrop/bin/python", f"{root}/opt/maskdrop/bin/maskdrop", "version"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(run, capture_output=True, text=True, check=True, env=environment, cwd="/")
    assert answer.stdout.startswith("maskdrop ")
    verified = scratch.dpkg("--verify", "maskdrop")
    assert verified == "", "running it changes nothing in the package"

    picture = root / "var/lib/maskdrop/inbox/portrait.jpg"
    picture.write_bytes(b"a picture")
    with (root / "etc/maskdrop.toml").open("a") as config:
        config.write("# mine\n")
    scratch.dpkg("--install", package)
    assert (root / "etc/maskdrop.toml").read_text().endswith("# mine\n")

    scratch.dpkg("--remove", "maskdrop")
    assert (root / "etc/maskdrop.toml").read_text().endswith("# mine\n")
    assert not (root / "opt/maskdrop").exists()
    told = scratch.dpkg("--purge", "maskdrop")
    assert "pictures and results are left" in told
    assert picture.read_bytes() == b"a picture"
    left = {str(path.relative_to(root)) for path in root.rglob("*maskdrop*")}
    assert left == {"var/lib/maskdrop"}


@pytest.mark.skipif(
    shutil.which("shellcheck", path=Path(sys.executable).parent) is None, reason="no shellcheck"
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_maintainer_scripts_are_sound(script: str) -> None:
    program = Path(sys.executable).parent / "shellcheck"
    answer = subprocess.run(
        [program, ROOT / "packaging/deb" / script], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout) == (0, "")


@pytest.mark.skipif(shutil.which("hadolint", path=Path(sys.executable).parent) is None, reason="no hadolint")
def test_the_container_recipe_is_sound() -> None:
    program = Path(sys.executable).parent / "hadolint"
    answer = subprocess.run([program, ROOT / "Containerfile"], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "")


RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >> "$ASKED"
case "$(basename "$0") $1" in
"systemctl list-units") echo "maskdrop@x.service loaded active running maskdrop" ;;
esac
"""


def asked_by(tmp_path: Path, *scripts: str) -> list[str]:
    """What the package's scripts ask of the system, by programs that take systemd's place in a namespace
    where it seems to run: one instance does, that is not enabled; and no policy forbids to start services."""
    programs, asked, allow = tmp_path / "bin", tmp_path / "asked", tmp_path / "allow"
    programs.mkdir()
    for name in ("systemctl", "deb-systemd-invoke", "deb-systemd-helper", "journalctl"):
        (programs / name).write_text(RECORDER)
        (programs / name).chmod(0o755)
    for name in ("systemd-sysusers", "systemd-tmpfiles"):
        (programs / name).symlink_to("systemctl")
    allow.write_text("#!/bin/sh\n")
    allow.chmod(0o755)
    policy = "/usr/sbin/policy-rc.d"
    steps = ["mount -t tmpfs none /run", "mkdir -p /run/systemd/system"]
    steps += [f"mount --bind {allow} {policy}"] if Path(policy).exists() else []
    steps += [f"sh {ROOT / 'packaging' / 'deb'}/{script}" for script in scripts]
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*command, steps[0]], capture_output=True).returncode != 0:
        pytest.skip("no namespace for mounts can be made here")
    path = f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"
    subprocess.run([*command, " && ".join(steps)], check=True, env={"PATH": path, "ASKED": str(asked)})
    return asked.read_text().splitlines()


def test_an_upgrade_starts_again_what_ran_and_nothing_else(tmp_path: Path) -> None:
    asked = asked_by(tmp_path, "prerm upgrade 0.2-1", "postinst configure 0.1-1")
    stopped, started = "deb-systemd-invoke stop maskdrop@x.service", "systemctl start maskdrop@x.service"
    assert asked.index(stopped) < asked.index(started)
    assert [line for line in asked if " start " in line] == [started]


def test_an_upgrade_whose_first_try_failed_still_knows_what_ran(tmp_path: Path) -> None:
    asked = asked_by(
        tmp_path, "prerm upgrade 0.2-1", "prerm failed-upgrade 0.1-1 0.2-1", "postinst configure 0.1-1"
    )
    assert "systemctl start maskdrop@x.service" in asked


def test_installed_again_after_it_was_removed_it_is_started(tmp_path: Path) -> None:
    asked = asked_by(tmp_path, "prerm remove", "postinst configure 0.1-1")
    assert [line for line in asked if " start " in line] == ["deb-systemd-invoke start maskdrop.service"]
