"""`maskdrop service` in scratch roots: the real command, real files, users and permissions."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from maskdrop.commands.exits import EX_CONFIG, EX_FAILED
from maskdrop.config_file import load_settings
from maskdrop.exit_codes import EX_USAGE
from maskdrop.service.environment import build_wheel, why_unusable
from maskdrop.service.install import Order, plan_install
from maskdrop.service.layout import FILES, ROOMS
from maskdrop.service.record import read_record
from maskdrop.service.steps import MakeEnvironment
from maskdrop.service.uninstall import units_there
from running import maskdrop

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give folders to another user")

CONFIG, UNIT = "etc/maskdrop.toml", "etc/systemd/system/maskdrop.service"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with nobody but root on it, and two environments."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    for name in ("maskdrop", "other"):
        program = root / "opt" / name / "bin" / "maskdrop"
        program.parent.mkdir(parents=True)
        program.touch(0o755)
    return root


def service(root: Path, *arguments: str, code: int = 0) -> str:
    """Standard output of the command, or standard error where it is to fail."""
    answer = maskdrop(["service", arguments[0], "--root", str(root), *arguments[1:]])
    assert answer.returncode == code, answer.stderr
    return answer.stderr if code and not answer.stdout else answer.stdout


def install(root: Path, *arguments: str) -> str:
    return service(root, "install", "--environment", "/opt/maskdrop", *arguments)


def tree(root: Path) -> dict[str, tuple[int, int, int, str]]:
    """Permissions, owner, group and content of all that is there."""
    found = {}
    for path in sorted(root.rglob("*")):
        facts = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(root))] = (facts.st_mode, facts.st_uid, facts.st_gid, content)
    return found


def test_a_dry_run_tells_all_and_does_nothing(root: Path) -> None:
    before = tree(root)
    told = install(root, "--dry-run")
    assert tree(root) == before
    install(root)
    made = set(tree(root)) - set(before)
    named = {line.split()[2].lstrip("/") for line in told.splitlines() if " /" in line}
    assert {UNIT, CONFIG, "var/lib/maskdrop/inbox"} <= named
    assert named <= made


def test_installed_once_twice_and_shown(root: Path) -> None:
    assert "no" in service(root, "show", code=EX_FAILED)
    install(root)
    assert (root / CONFIG).read_bytes() == (FILES / "etc" / "maskdrop.toml").read_bytes()
    assert (root / UNIT).read_bytes() == (FILES / "systemd" / "maskdrop.service").read_bytes()
    line = next(
        line for line in (root / "etc/passwd").read_text().splitlines() if line.startswith("maskdrop:")
    )
    user, group = int(line.split(":")[2]), int(line.split(":")[3])
    for name, mode in ROOMS.items():
        facts = (root / "var/lib/maskdrop" / name).stat()
        assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (mode, user, group)
    before = tree(root)
    assert "nothing to do" in install(root)
    assert tree(root) == before
    shown = service(root, "show")
    assert "MISSING" not in shown
    assert "edited" not in shown


def test_it_is_the_same_whatever_the_umask_of_who_installs(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(root, other)
    install(root)
    words = ["service", "install", "--root", str(other), "--environment", "/opt/maskdrop"]
    done = maskdrop(words, umask=0o077)
    assert done.returncode == 0, done.stderr
    modes, others = ({name: facts[0] for name, facts in tree(each).items()} for each in (root, other))
    assert others == modes


def test_what_somebody_edited_is_kept_and_the_newer_put_beside(root: Path) -> None:
    install(root)
    edited = (root / UNIT).read_bytes() + b"Nice=5\n"
    (root / UNIT).write_bytes(edited)
    assert "edited: kept" in install(root)
    newer = root / f"{UNIT}.dpkg-dist"
    assert not newer.exists(), "nothing newer to tell of"
    # Another environment makes other units: the edited one is kept, the other one is replaced.
    told = service(root, "install", "--environment", "/opt/other")
    assert "keep /etc/systemd/system/maskdrop.service (edited" in told
    assert (root / UNIT).read_bytes() == edited
    assert b"/opt/other/bin/maskdrop" in newer.read_bytes()
    assert "/opt/other/bin/maskdrop" in (root / "etc/systemd/system/maskdrop@.service").read_text()
    assert "edited, a newer one is maskdrop.service.dpkg-dist" in service(root, "show")
    before = tree(root)
    service(root, "install")  # the environment as last time
    assert tree(root) == before
    service(root, "install", "--force")
    assert (root / UNIT).read_bytes() == newer.read_bytes()
    assert (root / f"{UNIT}.dpkg-old").read_bytes() == edited


def test_its_name_may_be_typed_and_another_ones_command_of_that_name_is_left(root: Path) -> None:
    command = root / "usr/local/bin/maskdrop"
    install(root)
    assert command.readlink() == Path("/opt/maskdrop/bin/maskdrop")
    service(root, "install", "--environment", "/opt/other")
    assert command.readlink() == Path("/opt/other/bin/maskdrop")
    service(root, "uninstall")
    assert not command.is_symlink()
    for make in (Path.touch, lambda path: path.symlink_to("/srv/maskdrop")):
        make(command)
        before = tree(root)["usr/local/bin/maskdrop"]
        told = "not this installation's; type /opt/maskdrop/bin/maskdrop"
        assert f"keep /usr/local/bin/maskdrop ({told})" in install(root)
        assert told in service(root, "show")
        service(root, "uninstall")
        assert tree(root)["usr/local/bin/maskdrop"] == before
        command.unlink()


def test_a_configuration_from_before_is_kept(root: Path) -> None:
    (root / CONFIG).write_text("[folders]\ninbox = '/srv/in'\noutbox = '/srv/out'\n")
    before = (root / CONFIG).read_bytes()
    assert f"keep /{CONFIG} (edited" in install(root)
    assert (root / CONFIG).read_bytes() == before
    assert (root / f"{CONFIG}.dpkg-dist").read_bytes() == (FILES / "etc" / "maskdrop.toml").read_bytes()


def test_uninstalling_leaves_pictures_and_what_was_edited(root: Path) -> None:
    picture = root / "var/lib/maskdrop/inbox/portrait.jpg"
    assert "nothing to do" in service(root, "uninstall")
    install(root, "--instance", "passports")
    picture.write_bytes(b"a picture")
    with (root / CONFIG).open("a") as config:
        config.write("# mine\n")
    before = tree(root)
    service(root, "uninstall", "--dry-run")
    assert tree(root) == before
    service(root, "uninstall")
    left = tree(root)
    assert {path for path in left if path.startswith("var/")} == {p for p in before if p.startswith("var/")}
    assert left[CONFIG] == before[CONFIG]
    assert picture.read_bytes() == b"a picture"
    gone = {p for p in before if p.startswith(("etc/systemd", "etc/maskdrop/", "usr/"))} - set(left)
    assert {UNIT, "etc/maskdrop/passports.toml", "usr/local/lib/maskdrop/installed.json"} <= gone
    assert not list((root / "etc").rglob("maskdrop.conf"))
    assert (root / "opt/maskdrop/bin/maskdrop").exists(), "an environment that was there before is left"
    assert "nothing to do" in service(root, "uninstall")


def test_what_several_installations_made_goes_with_one_uninstallation(root: Path) -> None:
    """Instances of earlier ones, what was put beside an edited file, and folders that nothing else is in."""
    for name in ("passports", "visas"):
        install(root, "--instance", name)
    record = read_record(root)
    assert record is not None
    assert record.instances == ["passports", "visas"]
    (root / UNIT).write_bytes(b"[Unit]\n# mine\n")
    service(root, "install", "--environment", "/opt/other")
    newer = root / f"{UNIT}.dpkg-dist"
    assert newer.exists()
    service(root, "uninstall")
    assert (root / UNIT).exists()
    for gone in (newer, root / "etc/maskdrop", root / "usr/local/lib/maskdrop"):
        assert not gone.exists(), gone


def test_a_folder_that_is_no_environment_is_left_whatever_the_record_says(root: Path) -> None:
    install(root)
    file = root / "usr/local/lib/maskdrop/installed.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "made_environment": True}))
    service(root, "uninstall")
    assert not file.exists()
    assert (root / "opt/maskdrop/bin/maskdrop").exists()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ("opt/maskdrop", "--environment opt/maskdrop: give the full path it has on the system"),
        ("/opt/my maskdrop", "/opt/my maskdrop: unit files can't name that; choose a path of plain"),
        ("/opt/%h", "/opt/%h: unit files can't name that"),
    ],
)
def test_an_environment_that_no_unit_could_name_is_refused(root: Path, environment: str, told: str) -> None:
    program = root / environment.lstrip("/") / "bin" / "maskdrop"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.touch(0o755)
    before = tree(root)
    assert told in service(root, "install", "--environment", environment, code=EX_CONFIG)
    assert tree(root) == before


def test_an_environment_that_is_gone_is_shown_as_missing(root: Path) -> None:
    install(root)
    shutil.rmtree(root / "opt/maskdrop")
    assert "/opt/maskdrop, MISSING\n" in service(root, "show")


def test_an_uninstallation_that_was_interrupted_names_only_units_that_are_left(root: Path) -> None:
    """systemctl fails for others, and what begins with it would never be finished."""
    install(root, "--instance", "passports", "--instance", "visas")
    record = read_record(root)
    assert record is not None
    instances = ["maskdrop@passports.service", "maskdrop@visas.service"]
    assert units_there(root, record) == ["maskdrop.service", *instances]
    (root / UNIT).unlink()
    assert units_there(root, record) == instances
    (root / "etc/systemd/system/maskdrop@.service").unlink()
    assert units_there(root, record) == []
    service(root, "uninstall")
    assert "nothing to do" in service(root, "uninstall")


def test_an_installation_that_was_interrupted_makes_its_environment_anew(root: Path) -> None:
    """Else its service would run from what is half made, and nobody would take that away."""
    order = Order(root, Path("/opt/new"))
    steps = plan_install(order)
    (made,) = [place for place, step in enumerate(steps) if isinstance(step, MakeEnvironment)]
    for step in steps[:made]:
        step.do(root)
    program = root / "opt" / "new" / "bin" / "maskdrop"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    assert any(isinstance(step, MakeEnvironment) for step in plan_install(order))
    record = read_record(root)
    assert record is not None
    assert (record.environment, record.made_environment) == ("/opt/new", True)


def test_who_may_not_look_is_told_so_in_one_line(root: Path) -> None:
    """As where sudo was forgotten: the state folder shows its user and its group alone what is in it."""
    install(root)
    powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    if shutil.which("setpriv") is None or subprocess.run([*powerless, "true"], check=False).returncode:
        pytest.skip("capabilities can't be taken away here")
    words = ["service", "install", "--root", str(root), "--environment", "/opt/maskdrop", "--dry-run"]
    answer = maskdrop(words, powerless)
    assert answer.returncode == EX_FAILED
    assert len(answer.stderr.splitlines()) == 1
    assert answer.stderr.endswith("/var/lib/maskdrop/inbox: Permission denied; are you root?\n")


def test_an_instance_has_its_own_configuration_and_folders(root: Path) -> None:
    told = install(root, "--instance", "passports")
    assert "systemctl enable --now maskdrop@passports.service" in told
    settings = load_settings(root / "etc/maskdrop/passports.toml", {})
    assert settings.folders.inbox == Path("/var/lib/maskdrop/passports/inbox")
    assert settings.folders.outbox == Path("/var/lib/maskdrop/passports/outbox")
    inbox = (root / "var/lib/maskdrop/passports/inbox").stat()
    assert stat.S_IMODE(inbox.st_mode) == ROOMS["inbox"]
    assert "passports" not in (root / CONFIG).read_text()
    install(root, "--instance", "visas")
    assert (root / "etc/maskdrop/passports.toml").exists()


@pytest.mark.parametrize("name", ["../up", "inbox", "a b", "-x", "weights", "a/b"])
def test_a_name_that_is_no_instances_is_refused(root: Path, name: str) -> None:
    before = tree(root)
    arguments = ("--environment", "/opt/maskdrop", f"--instance={name}")
    assert "can't be an instance's name" in service(root, "install", *arguments, code=EX_CONFIG)
    assert tree(root) == before


def test_no_instances_name_is_empty(root: Path) -> None:
    before = tree(root)
    arguments = ("--environment", "/opt/maskdrop", "--instance=")
    assert "--instance=: is empty" in service(root, "install", *arguments, code=EX_USAGE)
    assert tree(root) == before


def test_a_packages_unit_is_left_to_the_package(root: Path) -> None:
    unit = root / "usr/lib/systemd/system/maskdrop.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")
    arguments = ("--environment", "/opt/maskdrop")
    assert "a package installed the service" in service(root, "install", *arguments, code=EX_CONFIG)
    assert "by a package" in service(root, "show")


def test_a_damaged_record_is_told_of(root: Path) -> None:
    record = root / "usr/local/lib/maskdrop/installed.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    assert "remove it and install again" in service(root, "show", code=EX_FAILED)


def test_an_environment_hidden_from_the_service_is_no_use(tmp_path: Path) -> None:
    assert "which is hidden from the service" in str(why_unusable(Path("/home/anna/.venv")))
    assert "which is hidden from the service" in str(why_unusable(Path("/tmp/venv")))
    assert "there is no" in str(why_unusable(Path("/opt/nobody/has/this")))


def test_an_environment_is_made_from_a_wheel_with_units_and_configuration_in_it(
    root: Path, tmp_path: Path
) -> None:
    wheel = build_wheel(FILES.parents[3], tmp_path)
    command = [sys.executable, "-m", "maskdrop", "service", "install", "--root", str(root)]
    command += ["--environment", "/opt/new", "--source", str(wheel)]
    environment = {**os.environ, "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
    subprocess.run(command, check=True, env=environment)
    made = root / "opt" / "new"
    assert (made / "bin" / "maskdrop").read_text().startswith("#!/opt/new/bin/python")
    (packages,) = made.glob("lib/python3*/site-packages")
    if packages.parent.name != Path(sysconfig.get_path("purelib")).parent.name:
        pytest.skip("the service's Python is another than this one, and can't be lent its libraries")
    # Only maskdrop itself was installed; its libraries are lent to it.
    lent = {"PYTHONPATH": sysconfig.get_path("purelib"), "PATH": os.environ["PATH"]}
    show = [str(made / "bin" / "python"), "-m", "maskdrop", "service", "show", "--root", str(root)]
    shown = subprocess.run(show, capture_output=True, text=True, check=True, env=lent, cwd="/").stdout
    assert "/opt/new, made by the installation" in shown
    (installed,) = made.glob("lib/python3*/site-packages/maskdrop/service/files")
    for name in ("systemd", "etc"):
        here = {
            path.relative_to(FILES): path.read_bytes() for path in (FILES / name).rglob("*") if path.is_file()
        }
        assert here == {
            path.relative_to(installed): path.read_bytes()
            for path in (installed / name).rglob("*")
            if path.is_file()
        }
    # A checkout's next version has the same number; pip is made to take it all the same. And the system's
    # Python was exchanged for another one.
    for link in (made / "bin").glob("python*"):
        if link.readlink().is_absolute():
            link.unlink()
            link.symlink_to("/usr/bin/python3.0")
    (made / installed.relative_to(made).parent / "layout.py").write_text("raise SystemExit('an old version')")
    subprocess.run(command, check=True, env=environment)
    again = subprocess.run(show, capture_output=True, text=True, check=True, env=lent, cwd="/").stdout
    assert again == shown
    service(root, "uninstall")
    assert not made.exists()
