"""What docs/service.md tells about the container, done by an ordinary user, word for word."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from booted.tree import TreeMissing, debian_tree
from container.person import CannotMoveIn, Person, living_in
from container.podman import CannotContain, Shown, set_up, why_not
from documented_elsewhere import commands_for
from drawing import face_bytes
from waiting import wait_for

BUILD_S = 300.0
MANY = 12

pytestmark = pytest.mark.timeout(900)  # the first run makes the tree


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    """Somebody who can run containers."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    try:
        tree = debian_tree("python3", "python3-venv")
        with living_in(tmp_path, Shown.here().by_name()) as person:
            set_up(person, tree)
            yield person
            print(person.attempt("podman ps --all; podman logs maskdrop").stdout)
    except (CannotMoveIn, CannotContain, TreeMissing) as error:
        pytest.skip(str(error))
    finally:
        shutil.rmtree(tmp_path / "home", ignore_errors=True)  # images are large


def drop(person: Person, name: str, seed: int) -> bytes:
    content = face_bytes(seed)
    person.write(f"faces/inbox/{name}", content)
    return content


def test_it_is_built_takes_pictures_and_drains_as_documented(
    person: Person, request: pytest.FixtureRequest
) -> None:
    build, make_folder, run, check, stop = commands_for(request.node.name)
    person.run(build, "/home/checkout", BUILD_S)
    person.run(make_folder)
    person.run(run)
    faces = person.home / "faces"

    def healthy() -> bool:
        assert person.run("podman inspect --format '{{.State.Status}}' maskdrop").strip() == "running"
        return person.attempt(check).returncode == 0

    wait_for(healthy, "the health check to pass")
    program = "import maskdrop; print(maskdrop.__file__)"
    where = person.run(f"podman exec maskdrop /opt/maskdrop/bin/python -c '{program}'")
    assert where.startswith("/opt/maskdrop/")  # not the checkout's
    # Debian has no program of this name, and a login shell sets PATH anew.
    found = person.run("podman exec maskdrop bash -lc 'command -v python'")
    assert found.strip() == "/opt/maskdrop/bin/python"
    assert "Read-only file system" in person.attempt("podman exec maskdrop touch /opt/a").stdout

    content = drop(person, "first.jpg", 0)
    archived = faces / "archive" / "first.jpg"
    wait_for(archived.exists, "the first picture done")
    assert archived.read_bytes() == content
    results = [*(faces / "outbox").iterdir()]
    assert [result.name for result in results] == ["first.jpg"]
    assert results[0].stat().st_uid == person.number

    dropped = {f"{index}.jpg": drop(person, f"{index}.jpg", index + 1) for index in range(MANY)}
    wait_for(lambda: (faces / "outbox" / "0.jpg").exists(), "the first of many")
    person.run(stop)
    state = json.loads(person.run("podman inspect --format '{{json .State}}' maskdrop"))
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    for name, content in dropped.items():
        place = "archive" if (faces / "outbox" / name).exists() else "inbox"
        assert (faces / place / name).read_bytes() == content, name
    assert not [*(faces / "quarantine").iterdir()]
    person.run("podman rm maskdrop")
    assert person.run("podman ps --all --quiet").strip() == ""
