"""docs/benchmarks.md and its picture, made anew from the figures in docs/benchmarks.json."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent

PROGRAM = """
import pathlib, sys
sys.path.insert(0, "bench")
import report
report.plot(report.last(), report.GROWTH, pathlib.Path(sys.argv[1]))
print(report.text(report.last()), end="")
"""


def test_the_page_says_what_the_figures_say_and_the_picture_can_be_drawn(tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.png"
    command = [sys.executable, "-c", PROGRAM, str(drawn)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout in (ROOT / "docs" / "benchmarks.md").read_text(), "python bench/report.py"
    with Image.open(drawn) as picture, Image.open(ROOT / "docs" / "images" / "benchmark.png") as kept:
        assert picture.size == kept.size
