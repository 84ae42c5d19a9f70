"""Monitoring's documents, alerts and dashboard, held to what a running daemon really writes."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broken_files import broken_files
from drawing import face_bytes
from running import QUICK, Daemon, Rooms

Start = Callable[..., Daemon]

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ALERTS = ROOT / "etc" / "prometheus-alerts.yml"
DASHBOARD = ROOT / "etc" / "grafana-dashboard.json"

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus"
)


class Told(NamedTuple):
    """What a daemon wrote that had saved, quarantined and lost a few."""

    health: dict[str, Any]
    metrics: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Iterator[Told]:
    rooms = Rooms.make(tmp_path_factory.mktemp("told"))
    file = rooms.base / "maskdrop.prom"
    daemon = Daemon(rooms, tiny_weights, f"{QUICK}[metrics]\nfile = '{file}'\n", [], {})
    try:
        daemon.wait_ready()
        rooms.drop("a.jpg", face_bytes(1))
        rooms.drop("half.jpg", broken_files()["jpeg-half.jpg"])
        daemon.wait_count("saved", 1)
        yield Told(daemon.wait_count("quarantined", 1), file.read_text())
        assert daemon.stop() == 0
    finally:
        daemon.destroy()


def table_below(heading: str, page: str) -> list[list[str]]:
    """Cells of the rows of the first table below a heading of a page."""
    lines = iter((DOCS / page).read_text().partition(f"# {heading}\n")[2].splitlines())
    rows = []
    for line in lines:
        if line.startswith("| `"):
            rows.append([cell.strip() for cell in line.strip("| ").split("|")])
        elif rows:
            break
    return rows


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Every key of a health file, as docs/reference/health-file.md writes it."""
    if isinstance(value, list):
        assert value, f"{path}: nothing in it to compare"
        for each in value:
            yield from paths(each, f"{path}[]")
    elif isinstance(value, dict):
        kinds = {"stages": "STAGE", "queues": "STEP", "plan.measured_ms": "STAGE"}
        kind = "STAGE" if path.startswith("latest") and path.endswith(".ms") else kinds.get(path)
        for key, each in value.items():
            shown = kind if kind and key != "free_slots" else key
            yield from paths(each, f"{path}.{shown}" if path else shown)
    else:
        yield path


def test_every_key_of_the_health_file_is_explained(told: Told) -> None:
    rows = table_below("The health file", "reference/health-file.md")
    explained = [key for row in rows for key in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(explained) == sorted(set(paths(told.health)))


def test_the_health_file_stays_small(start: Start, rooms: Rooms) -> None:
    """Whatever is dropped: long names of odd bytes, in quarantine and in the outbox."""
    daemon = start().wait_ready()
    folder = "/".join(["ü\n" * 60] * 4)
    for index in range(12):
        rooms.drop(f"{folder}/{index:03}{'é' * 50}.jpg", face_bytes(index))
        rooms.drop(f"{folder}/broken-{index:03}\udce9{'é' * 50}.jpg", b"no picture" * (index + 1))
    daemon.wait_count("saved", 12)
    health = daemon.wait_count("quarantined", 12)
    assert rooms.health.stat().st_size < 20 * 1024
    latest = health["latest"]
    assert len(latest["saved"]) == len(latest["quarantined"]) == 10
    for picture in [*latest["saved"], *latest["quarantined"]]:
        assert picture["picture"].isprintable()
        assert len(picture["picture"]) <= 160
    assert re.search(r"\d\d\dé{50}\.jpg$", latest["saved"][0]["picture"])
    assert daemon.stop() == 0


class Metric(NamedTuple):
    name: str
    kind: str
    labels: frozenset[str]


def metrics_of(text: str) -> set[Metric]:
    """Name, type and labels of each metric, but for those that all have."""
    found = set()
    for family in text_string_to_metric_families(text):
        labels = {label for sample in family.samples for label in sample.labels} - {"inbox", "le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found.add(Metric(name, family.type, frozenset(labels)))
    return found


def test_every_metric_is_explained(told: Told) -> None:
    explained = {
        Metric(name.strip("`"), kind, frozenset(re.findall(r"`([^`]+)`", labels)))
        for name, kind, labels, _ in table_below("Metrics", "reference/metrics.md")
    }
    assert explained == metrics_of(told.metrics)


def expressions() -> dict[str, str]:
    """Every PromQL expression of alerts and dashboard, by where it stands."""
    found = {}
    for name, rest in re.findall(r"- alert: (\w+)\n\s+expr: (.*?)\n\s+for:", ALERTS.read_text(), re.DOTALL):
        found[name] = " ".join(rest.removeprefix(">-").split())
    board = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for note in board["annotations"]["list"]:
        found[f"annotation {note['name']}"] = note["expr"]
    assert len(found) > 30
    return found


def test_alerts_and_dashboard_name_nothing_but_what_the_daemon_writes(told: Told) -> None:
    written: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(told.metrics):
        for sample in family.samples:
            written.setdefault(sample.name, {"inbox", "instance", "job"}).update(sample.labels)
    labels = set().union(*written.values())
    for place, expression in expressions().items():
        names = set(re.findall(r"\bmaskdrop_\w+", expression))
        assert names, place
        assert names <= set(written), place
        for name, selector in re.findall(r"\b(maskdrop_\w+)\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)=", selector)) <= written[name], place
        for grouped in re.findall(r"\b(?:by|without|ignoring) \(([^)]*)\)", expression):
            assert set(grouped.split(", ")) <= labels, place
    assert set(re.findall(r'state="(\w+)"', " ".join(expressions().values()))) <= {
        label["state"]
        for family in text_string_to_metric_families(told.metrics)
        for label in (sample.labels for sample in family.samples)
        if "state" in label
    }


def test_every_alert_is_explained_with_summary_and_remedy() -> None:
    text = ALERTS.read_text()
    named = re.findall(r"- alert: (\w+)", text)
    assert [row[0].strip("`") for row in table_below("Alerts", "monitoring.md")] == named
    for part in text.split("- alert: ")[1:]:
        for key in ("severity: ", "summary: ", "description: "):
            assert part.count(key) == 1, part


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    cells = {
        (x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])
    }
    assert len(cells) == sum(place["w"] * place["h"] for place in places), "no panel lies on another"
    assert {variable["name"] for variable in board["templating"]["list"]} == {
        "datasource",
        "instance",
        "inbox",
    }


def tool(*arguments: str, **options: Any) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_promtool_likes_the_metrics(told: Told) -> None:
    tool("check", "metrics", input=told.metrics)


@promtool
def test_promtool_likes_the_alerts_and_they_fire_when_they_should() -> None:
    tool("check", "rules", str(ALERTS))
    tool("test", "rules", str(Path(__file__).parent / "alerts-test.yml"))


@promtool
def test_promtool_can_read_every_expression(tmp_path: Path) -> None:
    lines = ["groups:", "  - name: all", "    rules:"]
    for number, expression in enumerate(expressions().values()):
        lines += [f"      - record: a:b{number}", "        expr: >-", "          " + expression]
    rules = tmp_path / "rules.yml"
    rules.write_text("\n".join(lines).replace("$__rate_interval", "5m") + "\n")
    tool("check", "rules", str(rules))
