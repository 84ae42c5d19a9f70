"""Configuration: defaults, and one clear line with exit code 78 for every fault."""

import errno
import os
import re
import subprocess
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.config import Settings
from maskdrop.config_file import ConfigurationError, load_settings
from maskdrop.folders import NoRoom, check_rename, check_writable, prepare_folders, refuse_want_of_room
from maskdrop.health.file import content_of
from running import Rooms, maskdrop
from test_top import full_health

ETC = Path(__file__).parent.parent / "etc" / "maskdrop.toml"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return maskdrop(["run", *arguments])


def refused(rooms: Rooms, settings: str, *arguments: str) -> str:
    """The one line with which the daemon refuses a configuration."""
    config = rooms.base / "maskdrop.toml"
    config.write_text(settings)
    done = run("--config", str(config), *arguments)
    assert done.returncode == 78, done.stderr
    assert done.stderr.startswith("maskdrop: ")
    assert done.stderr.count("\n") == 1
    assert rooms.pictures("outbox") == []
    assert not rooms.health.exists()
    return done.stderr


def folders(rooms: Rooms, more: str = "") -> str:
    return f"[folders]\ninbox = '{rooms.inbox}'\noutbox = '{rooms.outbox}'\n{more}"


def test_the_commented_file_holds_exactly_the_defaults() -> None:
    settings = load_settings(ETC, {})
    plain = Settings.model_validate(
        {"folders": {"inbox": "/var/lib/maskdrop/inbox", "outbox": "/var/lib/maskdrop/outbox"}}
    )
    assert settings == plain


def test_the_commented_file_explains_every_key() -> None:
    text = ETC.read_text()
    given_keys = tomllib.loads(text)
    for section, field in Settings.model_fields.items():
        assert section in given_keys or section == "health"
        assert isinstance(field.annotation, type)
        for key in field.annotation.model_fields:
            assert f"\n{key} = " in text or f"\n# {key} = " in text, f"{section}.{key}"


def test_command_line_wins_over_file(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[folders]\ninbox = '/a'\noutbox = '/b'\n[log]\nformat = 'json'\n")
    settings = load_settings(config, {"folders": {"inbox": Path("/c")}, "log": {"format": None}})
    assert str(settings.folders.inbox) == "/c"
    assert str(settings.folders.outbox) == "/b"
    assert settings.log.format == "json"


def test_numbers_may_be_written_in_other_ways() -> None:
    folders = {"inbox": "/x/in", "outbox": "/y/out"}
    numbers = {"max_bytes": 1e9, "max_pixels": np.int64(10**6)}
    settings = load_settings(None, {"folders": folders, "watch": {"rescan_s": 5}, "decode": numbers})
    decode = settings.decode
    assert (settings.watch.rescan_s, decode.max_bytes, decode.max_pixels) == (5.0, 10**9, 10**6)


def test_other_folders_lie_beside_the_inbox() -> None:
    settings = load_settings(None, {"folders": {"inbox": Path("/x/in"), "outbox": Path("/y/out")}})
    assert str(settings.folders.quarantine_folder) == "/x/quarantine"
    assert str(settings.folders.archive_folder) == "/x/archive"
    assert str(settings.health_file) == "/x/health.json"


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("[watch]\nsettle_sm = 5", ["watch.settle_sm", "5", "unknown key", "did you mean settle_ms?"]),
        ("[wacht]\npolling = true", ["wacht", "unknown key", "did you mean watch?"]),
        ("[watch]\nsettle_ms = 'soon'", ["watch.settle_ms", "'soon'", "integer"]),
        ("[watch]\nsettle_ms = true", ["watch.settle_ms = True: is neither an integer nor"]),
        ("[watch]\nrescan_s = '5'", ["watch.rescan_s = '5': is neither an integer nor"]),
        ("[watch]\npolling = 1", ["watch.polling = 1: ", "boolean"]),
        ("[watch]\npolling = 'yes'", ["watch.polling = 'yes': ", "boolean"]),
        ("[metrics]\nport = '9469'", ["metrics.port = '9469': is neither an integer nor"]),
        ("[workers]\nsave = true", ["workers.save = True: is neither an integer nor"]),
        ("[model]\nmean = [true, 0, 0]", ["model.mean.0 = True: is neither an integer nor"]),
        ("[watch]\nsettle_ms = -1", ["watch.settle_ms", "-1", "greater than or equal to 0"]),
        ("[save]\nformat = 'jpg'", ["save.format", "'jpg'", "'jpeg', 'png' or 'webp'"]),
        ("[save]\nkeep = ['nose', 'chin']", ["save", "'chin'", "choose from"]),
        ("[save]\noutputs = []", ["save.outputs", "at least 1"]),
        ("[decode]\nformats = ['PSD']", ["decode", "PSD", "choose from"]),
        ("[model]\ndevice = 'gpu'", ["model.device", "'gpu'"]),
        ("[folders]\narchive = '~nobody-of-this-name/x'", ["folders.archive", "name the folder in full"]),
        (
            "[save]\noutputs = ['face', 'overlay']\nsuffix = {overlay = ''}",
            ["overlay would have the name of another output, NAME.jpg", "a suffix of its own"],
        ),
        ("[workers]\nsave = 0", ["workers.save", "0"]),
        ("[folders]\nafter = 'burn'", ["folders.after", "'burn'", "'archive' or 'delete'"]),
        (
            "[model]\nprecision = 'int8'\ndevice = 'cuda'",
            ["int8 is for a CPU, and device is cuda", "set auto"],
        ),
        ("[model]\nclasses = ['a', 'a']\n[save]\nkeep = ['a']", ["a class is named twice"]),
        (
            "[model]\nclasses = ['a', 'b']\n[save]\nkeep = ['b']\n[face]\nlocate = 'on'",
            ["face.locate is on, but model.classes has no ", "set face.locate = off"],
        ),
        (
            "[health]\nfile = '/tmp/h'\n[log]\nfile = '/tmp/h'",
            ["log.file = /tmp/h", "is the health file too"],
        ),
        ("watch = 3", ["watch", "3", "table"]),
        ("[watch\n", ["--config", "not TOML"]),
    ],
)
def test_each_fault_is_one_line_with_key_value_and_remedy(rooms: Rooms, lines: str, named: list[str]) -> None:
    arguments = ["--inbox", str(rooms.inbox), "--outbox", str(rooms.outbox)]
    message = refused(rooms, lines, *arguments)
    for part in named:
        assert part in message
    assert "; " in message


@pytest.mark.parametrize(
    ("tables", "begin"),
    [
        ({"save": {"keep": ["skni"]}}, "save.keep = ['skni']: names 'skni', which is no class; choose from "),
        ({"save": {"outputs": ["face", "face"]}}, "save.outputs = ['face', 'face']: an output is named "),
        (
            {"save": {"outputs": ["face", "overlay"], "suffix": {"overlay": ""}}},
            "save.suffix = {'overlay': ''}: overlay would have the name of another output",
        ),
        ({"decode": {"formats": ["PSD"]}}, "decode.formats = ['PSD']: unknown format PSD; choose from "),
        ({"model": {"palette": [[1, 2, 3]]}}, "model.palette = [[1, 2, 3]]: 1 colours for 19 classes; "),
        ({"model": {"classes": ["a", "a"]}}, "model.classes = ['a', 'a']: a class is named twice; "),
        ({"model": {"precision": "int8", "channels_last": False}}, "model.precision = 'int8': precision = "),
        ({"model": {"precision": "int8", "device": "cuda"}}, "model.precision = 'int8': precision = int8 "),
        ({"model": {"tensorrt": True, "device": "cpu"}}, "model.tensorrt = True: tensorrt = true is for "),
        (
            {"model": {"classes": ["a", "b"]}, "save": {"keep": ["b"]}, "face": {"locate": "on"}},
            "model.classes = ['a', 'b']: face.locate is on, but model.classes has no ",
        ),
    ],
)
def test_what_is_wrong_beside_other_keys_is_told_with_its_own(
    tables: dict[str, dict[str, object]], begin: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(begin)}") as caught:
        load_settings(None, {"folders": {"inbox": "/x/in", "outbox": "/y/out"}, **tables})
    assert caught.value.remedy


def test_a_network_without_the_parts_of_a_face_has_none_that_is_looked_at_again() -> None:
    folders = {"inbox": "/x/in", "outbox": "/x/out"}
    plain = Settings.model_validate({"folders": folders})
    tables = {"model": {"classes": ["a", "b"]}, "save": {"keep": ["b"]}}
    assert (plain.views, Settings.model_validate({"folders": folders, **tables}).views) == (6, 0)


def test_the_folder_of_a_health_file_is_made(rooms: Rooms) -> None:
    file = rooms.base / "run" / "maskdrop" / "health.json"
    places = {"inbox": rooms.inbox, "outbox": rooms.outbox}
    prepare_folders(load_settings(None, {"folders": places, "health": {"file": file}}))
    assert list(file.parent.iterdir()) == []


def test_missing_folders_are_named(rooms: Rooms) -> None:
    assert "folders.outbox" in refused(rooms, f"[folders]\ninbox = '{rooms.inbox}'")
    assert "--inbox" in refused(rooms, "")


def test_inbox_inside_outbox(rooms: Rooms) -> None:
    message = refused(rooms, f"[folders]\ninbox = '{rooms.outbox}/inbox'\noutbox = '{rooms.outbox}'")
    assert "folders.inbox" in message
    assert str(rooms.outbox / "inbox") in message
    assert "lies inside the outbox" in message


@pytest.mark.parametrize("key", ["outbox", "quarantine", "archive"])
def test_folder_inside_inbox(rooms: Rooms, key: str) -> None:
    lines = {"inbox": rooms.inbox, "outbox": rooms.outbox, key: rooms.inbox / "sub"}
    message = refused(rooms, "[folders]\n" + "".join(f"{k} = '{v}'\n" for k, v in lines.items()))
    assert f"folders.{key}" in message
    assert "choose a folder outside the inbox" in message


def test_one_folder_for_two(rooms: Rooms) -> None:
    assert "is the outbox too" in refused(rooms, folders(rooms, f"archive = '{rooms.outbox}'"))


def test_one_folder_that_is_mounted_in_two_places(rooms: Rooms, mounted: Callable[..., None]) -> None:
    """Results would come back as pictures, again and again."""
    mounted("--bind", str(rooms.inbox), str(rooms.outbox))
    message = refused(rooms, folders(rooms))
    assert f"folders.outbox = {rooms.outbox}: is the inbox too; " in message
    inside = f"[folders]\ninbox = '{rooms.inbox}'\noutbox = '{rooms.outbox}/results'\n"
    assert "lies inside the inbox" in refused(rooms, inside)


def test_results_that_maskdrop_itself_could_not_read(rooms: Rooms) -> None:
    message = refused(rooms, folders(rooms, "file_mode = '0200'"))
    assert message.startswith("maskdrop: folders.file_mode = '0200': ")
    assert "let their owner, as in 0600" in message


def test_health_file_inside_inbox(rooms: Rooms) -> None:
    message = refused(rooms, folders(rooms), "--health", str(rooms.inbox / "health.json"))
    assert "health.file" in message


def test_a_health_file_that_is_none_is_not_replaced(rooms: Rooms) -> None:
    (rooms.base / "round").symlink_to(rooms.base / "round")
    told = refused(rooms, folders(rooms), "--health", str(rooms.base / "round" / "health.json"))
    assert f"health.file = {rooms.base / 'round'}: links on its way lead round in a circle" in told
    pipe, link = rooms.base / "pipe", rooms.base / "link"
    os.mkfifo(pipe)
    link.symlink_to(link)
    for place in (pipe, link):
        lines = f'inbox = "{rooms.inbox}"\noutbox = "{rooms.outbox}"\n[health]\nfile = "{place}"'
        told = refused(rooms, "[folders]\n" + lines)
        assert told.startswith(
            f"maskdrop: health.file = {place}: is no regular file, and one would replace it"
        )
    assert pipe.is_fifo()
    assert link.is_symlink()


def test_no_word_and_no_folder_is_empty(rooms: Rooms) -> None:
    for words in (["run", "--inbox", "", "--outbox", "o"], ["run", "--inbox=", "--outbox=o"], ["check", ""]):
        done = maskdrop(words, cwd=rooms.base)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "is empty; is a variable of the shell not set?" in done.stderr
    done = maskdrop(["check", str(rooms.inbox), "--only=*="])
    assert (done.returncode, done.stderr.splitlines()[-1][:19]) == (0, "checked 0 of 0 file")
    told = refused(rooms, '[folders]\ninbox = ""\noutbox = "o"')
    assert "folders.inbox = ''" in told
    assert "is empty; name it, or leave the key out" in told


def test_a_limit_of_file_sizes_is_told_as_one(rooms: Rooms) -> None:
    words = ["run", "--inbox", str(rooms.inbox), "--outbox", str(rooms.outbox)]
    done = maskdrop(words, prefix=["prlimit", "--fsize=65536"])
    assert done.returncode == 78
    assert "no file may be as large as so many slots" in done.stderr
    assert "raise the limit (ulimit -f, LimitFSIZE)" in done.stderr


@pytest.mark.parametrize("buffered", [["-u", "PYTHONUNBUFFERED"], ["PYTHONUNBUFFERED=1"]])
@pytest.mark.parametrize(
    "words",
    [
        ["version"],
        ["--help"],
        ["doctor", "--inbox", "i", "--outbox", "o"],
        ["status", "--json", "--health", "full.json"],
        ["top", "--once", "--health", "full.json"],
    ],
)
def test_what_cant_be_printed_is_told_in_one_line(
    tmp_path: Path, words: list[str], buffered: list[str]
) -> None:
    (tmp_path / "full.json").write_bytes(content_of(full_health()))
    with Path("/dev/full").open("w") as full:
        done = maskdrop(words, prefix=["env", *buffered], stdout=full.fileno(), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "maskdrop: standard output: No space left on device\n"


def test_folder_on_another_file_system(rooms: Rooms) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == rooms.inbox.stat().st_dev:
        pytest.skip("/dev/shm is no other file system than the temporary folder here")
    target = other / f"maskdrop-test-{rooms.base.name}"
    try:
        message = refused(rooms, folders(rooms), "--archive", str(target))
    finally:
        target.rmdir()
    assert "folders.archive" in message
    assert str(target) in message
    assert "not atomic" in message
    assert "choose a folder on the inbox's file system" in message


def test_two_that_try_the_same_folders_are_not_in_each_others_way(rooms: Rooms) -> None:
    """Threads here, which have one process number, as daemons in two containers may have."""

    def try_out(_: int) -> None:
        check_writable("folders.outbox", rooms.outbox)
        check_rename("folders.archive", rooms.inbox, rooms.archive)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(try_out, range(400)))
    assert not [path for path in rooms.base.rglob("*") if path.is_file()]


def test_missing_weights(rooms: Rooms) -> None:
    message = refused(rooms, folders(rooms), "--weights", "/nowhere/face.pth")
    assert "model.weights = /nowhere/face.pth" in message
    assert "No such file" in message
    assert "; name a weights file" in message


def test_a_gpu_that_is_not_there(rooms: Rooms) -> None:
    message = refused(rooms, folders(rooms), "--device", "cuda:97")
    assert "model.device = 'cuda:97'" in message


def test_a_config_file_without_end(tmp_path: Path) -> None:
    (tmp_path / "c.toml").symlink_to("/dev/zero")
    with pytest.raises(ConfigurationError, match="larger than 1,048,576 bytes; name a TOML file"):
        load_settings(tmp_path / "c.toml", {})


def test_a_config_file_from_windows(tmp_path: Path) -> None:
    file, text = tmp_path / "c.toml", "[folders]\r\ninbox = '/x/ä'\r\noutbox = '/y'\r\n"
    file.write_bytes(text.encode("utf-8-sig"))
    assert load_settings(file, {}).folders.inbox == Path("/x/ä")
    for encoding, line in (("cp1252", 2), ("utf-16", 1)):
        file.write_bytes(text.encode(encoding))
        with pytest.raises(ConfigurationError, match=f"is not UTF-8 in line {line}; save it as UTF-8"):
            load_settings(file, {})


def test_unreadable_config_file(rooms: Rooms) -> None:
    done = run("--config", str(rooms.base / "none.toml"))
    assert done.returncode == 78
    assert "none.toml" in done.stderr


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
sections = st.sampled_from([*Settings.model_fields, "other"])
keys = st.sampled_from(["settle_ms", "format", "keep", "suffix", "inbox", "slots", "device", "outputs", "x"])


@given(st.dictionaries(sections, st.dictionaries(keys, values, max_size=4), max_size=4))
def test_any_values_are_settings_or_one_line(changes: dict[str, dict[str, object]]) -> None:
    base = {"inbox": Path("/a/in"), "outbox": Path("/a/out")}
    merged = {**changes, "folders": {**base, **changes.get("folders", {})}}
    message = ""
    try:
        settings = load_settings(None, merged)
        assert settings.folders.outbox.is_absolute()
    except ConfigurationError as error:
        message = str(error)
    assert not message or (" = " in message and "; " in message and "\n" not in message)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_and_a_quota_are_want_of_room(tmp_path: Path, number: int) -> None:
    with pytest.raises(NoRoom, match="make room"):
        refuse_want_of_room("folders.outbox", tmp_path, OSError(number, os.strerror(number)))
