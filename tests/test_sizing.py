"""tools/sizing.py: its arithmetic, and that docs/scale.md says what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sizing

ROOT = Path(__file__).parent.parent
TOOL = [sys.executable, str(ROOT / "tools" / "sizing.py")]

EASY = sizing.Picture(bytes_in=1_000_000, bytes_out=500_000, decode_ms=20, forward_ms=60, save_ms=18)
PLAIN = sizing.Assumed(1.5, 0.5, node_cores=8, node_gigabits=16, reads_a_second=500, writes_a_second=300)


def test_the_document_has_every_table_as_the_tool_makes_it() -> None:
    text = (ROOT / "docs" / "scale.md").read_text()
    assert sorted(sizing.places(text)) == sorted(sizing.TABLES)
    assert sizing.put(text, sizing.read(sizing.FIGURES)) == text, (
        "python tools/sizing.py --write docs/scale.md"
    )


def test_hours_rates_and_limits_by_hand() -> None:
    assert sizing.beside_gpu(EASY, PLAIN) == 40
    assert sizing.without_gpu(EASY, PLAIN) == 100
    assert sizing.hours(100, 36_000_000) == 1000
    limits = sizing.node_limits(2048, EASY, PLAIN)
    assert limits["cores"] == 200  # 8 cores, 40 ms each
    assert limits["network"] == 2000  # 2 GB a second, 1 MB each
    assert limits["network with pixels"] == pytest.approx(2e9 / (1e6 + 512 * 512 * 3))
    small = sizing.node_limits(512, EASY, PLAIN)  # pixels and labels go on, and no file
    assert small["network with pixels"] == pytest.approx(2e9 / (512 * 512 * 4))
    assert sizing.prefix_limit(PLAIN) == 250  # two reads a picture where the pictures are
    assert sizing.prefix_limit(sizing.Assumed(reads_a_second=5500, writes_a_second=100)) == 100
    assert sizing.prefix_limit(sizing.Assumed(output_reads=5.5, reads_a_second=5500)) == 1000


@given(st.floats(0.01, 1e12))
def test_a_number_is_printed_to_within_a_twentieth(value: float) -> None:
    shown = sizing.number(value)
    assert float(shown.replace(",", "")) == pytest.approx(value, rel=0.055)
    assert len(shown.replace(",", "").rstrip("0").replace(".", "").lstrip("0")) <= 3


def test_the_readers_own_figures(tmp_path: Path) -> None:
    figures = json.loads(sizing.FIGURES.read_text())
    figures["pictures"] = {"1024": figures["pictures"]["512"] | {"decode_ms": 7.77}}
    figures["assumed"] = {"gpu_rates": [4321]}
    own, document = tmp_path / "own.json", tmp_path / "doc.md"
    own.write_text(json.dumps(figures))
    said = subprocess.run([*TOOL, str(own)], capture_output=True, text=True, check=True).stdout
    assert "1,024 px | 7.8" in said
    assert "GPU-hours at 4,321/s" in said
    document.write_text("before\n<!-- sizing: picture -->\nold\n<!-- end -->\nafter\n")
    subprocess.run([*TOOL, str(own), "--write", str(document)], check=True)
    written = document.read_text()
    assert written.startswith("before\n<!-- sizing: picture -->\n| ms |")
    assert written.endswith("|\n<!-- end -->\nafter\n")
    assert "old" not in written


@pytest.mark.parametrize("content", ["{", "{}", '{"machine": "m", "pictures": {"512": {"bytes": 1}}}'])
def test_figures_that_are_none_are_refused(tmp_path: Path, content: str) -> None:
    own = tmp_path / "own.json"
    own.write_text(content)
    done = subprocess.run([*TOOL, str(own)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(own) in done.stderr
    assert "Traceback" not in done.stderr
