"""The documented kubectl commands, by real kubectl, against a server that checks what it is sent."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from documented_elsewhere import commands_for
from rayjob_server import Stored, serving

ROOT = Path(__file__).parent.parent
PATIENCE_S = 90

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="no kubectl here: apt-get install kubernetes-client"
)


@dataclass(frozen=True)
class Cluster:
    """A server as kubectl finds it."""

    stored: Stored
    environment: dict[str, str]

    def run(self, command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            shlex.split(command),
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with serving() as (address, stored):
        settings = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": address}}],
            "users": [{"name": "test", "user": {}}],
        }
        file = tmp_path / "kubeconfig"
        file.write_text(json.dumps(settings))
        yield Cluster(stored, {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": str(file)})


def test_kubectl_tries_and_applies_the_manifest_as_documented(cluster: Cluster) -> None:
    tried, applied = commands_for("test_kubectl_tries_and_applies_the_manifest_as_documented")
    answer = cluster.run(tried)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "rayjob.ray.io/maskdrop created (server dry run)\n"
    assert (cluster.stored.tried, cluster.stored.jobs) == (["maskdrop"], {})
    answer = cluster.run(applied)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "rayjob.ray.io/maskdrop created\n"
    assert cluster.stored.jobs.keys() == {"maskdrop"}
    assert cluster.run(applied).stdout == "rayjob.ray.io/maskdrop unchanged\n"


@pytest.mark.parametrize("number", [0, 1])
def test_kubectl_is_refused_a_wrong_manifest(cluster: Cluster, tmp_path: Path, number: int) -> None:
    command = commands_for("test_kubectl_tries_and_applies_the_manifest_as_documented")[number]
    file = tmp_path / "etc" / "kuberay.yaml"
    file.parent.mkdir()
    right = (ROOT / "etc" / "kuberay.yaml").read_text()
    file.write_text(right.replace("entrypoint:", "entryPoint:"))
    answer = cluster.run(command, tmp_path)
    assert answer.returncode == 1
    assert "entryPoint" in answer.stderr
    assert (cluster.stored.tried, cluster.stored.jobs) == ([], {})
