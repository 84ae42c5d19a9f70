"""etc/kuberay.yaml: fields that KubeRay and Kubernetes know, a job that maskdrop knows."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from maskdrop.config import DrainSettings
from rayjob import SCHEMA, check, groups, templates

ROOT = Path(__file__).parent.parent


def cluster(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["rayClusterSpec"]
    return found


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "etc" / "kuberay.yaml").read_text())
    return loaded


def test_the_schema_is_one_and_the_manifest_fits_it(job: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    check(job)


MISTAKES: dict[str, Callable[[dict[str, Any]], object]] = {
    "entryPoint": lambda job: job["spec"].update(entryPoint=job["spec"].pop("entrypoint")),
    "ttlSecondsAfterFinish": lambda job: job["spec"].update(ttlSecondsAfterFinish=60),
    "num-cpus": lambda job: groups(job)[0]["rayStartParams"].update({"num-cpus": 0}),
    "groupName": lambda job: groups(job)[1].pop("groupName"),
    "name": lambda job: job["metadata"].update(name="1maskdrop"),
    "backoffLimit": lambda job: job["spec"].update(backoffLimit=-1),
    "no cluster": lambda job: job["spec"].update(clusterSelector={"app": "maskdrop"}, backoffLimit=0),
    "kept, then deleted": lambda job: job["spec"].update(shutdownAfterJobFinishes=False),
    "two submitters": lambda job: job["spec"].update(submissionMode="SidecarMode"),
    "retries by hand": lambda job: job["spec"].update(submissionMode="InteractiveMode"),
    "no condition": lambda job: job["spec"].update(
        shutdownAfterJobFinishes=False,
        ttlSecondsAfterFinished=0,
        deletionStrategy={"deletionRules": [{"policy": "DeleteSelf"}]},
    ),
    "cores twice": lambda job: groups(job)[0].update(resources={"CPU": "4"}),
    "no container": lambda job: groups(job)[1]["template"]["spec"].update(containers=[]),
    "replicas": lambda job: groups(job)[2].update(replicas="1"),
    "toleration": lambda job: groups(job)[2]["template"]["spec"]["tolerations"][0].update(keys="x"),
    "resource": lambda job: groups(job)[1]["template"]["spec"]["containers"][0].update(resource={}),
    "runAsUser": lambda job: groups(job)[0]["template"]["spec"]["securityContext"].update(runAsUser="me"),
    "submitter": lambda job: templates(job)[-1]["spec"]["containers"][0].update(resource={}),
    "fewer than none": lambda job: groups(job)[1].update(minReplicas=-1),
    "least above most": lambda job: groups(job)[1].update(minReplicas=2, maxReplicas=1),
    "a group stopped, and scaled": lambda job: (
        cluster(job).update(enableInTreeAutoscaling=True),
        groups(job)[1].update(suspend=True),
    ),
    "updated by itself": lambda job: cluster(job).update(upgradeStrategy={"type": "Recreate"}),
    "Kubernetes' tokens": lambda job: cluster(job).update(
        authOptions={"mode": "token", "enableK8sTokenAuth": True}
    ),
    "retries elsewhere": lambda job: job["spec"].update(clusterSelector={"ray.io/cluster": "there"}),
    "submitter starts again": lambda job: (
        job["spec"].update(submissionMode="SidecarMode"),
        job["spec"].pop("submitterPodTemplate"),
        groups(job)[0]["template"]["spec"].update(restartPolicy="Always"),
    ),
    "deleted, and nothing is": lambda job: job["spec"].update(
        deletionStrategy={"onSuccess": {"policy": "DeleteNone"}, "onFailure": {"policy": "DeleteCluster"}}
    ),
}

VARIANTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a cluster that is there": lambda job: (
        job["spec"].update(clusterSelector={"ray.io/cluster": "there"}, backoffLimit=0),
        job["spec"].pop("rayClusterSpec"),
    ),
    "no workers but the head": lambda job: cluster(job).pop("workerGroupSpecs"),
    "submitted by the head": lambda job: (
        job["spec"].update(submissionMode="SidecarMode"),
        job["spec"].pop("submitterPodTemplate"),
    ),
    "scaled": lambda job: cluster(job).update(
        enableInTreeAutoscaling=True, autoscalerOptions={"version": "v2"}
    ),
    "deleted by rules": lambda job: job["spec"].update(
        shutdownAfterJobFinishes=False,
        ttlSecondsAfterFinished=0,
        deletionStrategy={
            "deletionRules": [
                {"policy": "DeleteWorkers", "condition": {"jobStatus": "FAILED", "ttlSeconds": 60}}
            ]
        },
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(job: dict[str, Any], mistake: str) -> None:
    wrong = deepcopy(job)
    MISTAKES[mistake](wrong)
    with pytest.raises(jsonschema.ValidationError):
        check(wrong)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_reader_may_make_of_it_fits_too(job: dict[str, Any], variant: str) -> None:
    other = deepcopy(job)
    VARIANTS[variant](other)
    check(other)


def test_all_pods_are_of_one_image_and_unprivileged_and_those_that_work_have_the_keys(
    job: dict[str, Any],
) -> None:
    pods = [template["spec"] for template in templates(job)]
    containers = [container for pod in pods for container in pod["containers"]]
    assert len(containers) == len(pods) == 4
    assert len({container["image"] for container in containers}) == 1
    for pod, container in zip(pods, containers, strict=True):
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    *working, submitter = containers
    assert all(container["envFrom"] == [{"secretRef": {"name": "maskdrop-s3"}}] for container in working)
    assert "envFrom" not in submitter
    assert "10001" in re.findall(r"^USER (\d+)", (ROOT / "Containerfile").read_text(), re.MULTILINE)


def test_a_job_that_is_stopped_has_the_time_to_drain(job: dict[str, Any]) -> None:
    (head,) = templates(job)[0]["spec"]["containers"]
    (seconds,) = (one["value"] for one in head["env"] if one["name"] == "RAY_JOB_STOP_WAIT_TIME_S")
    assert float(seconds) > 2 * DrainSettings().drain_timeout_s


STAND_IN = """#!/bin/sh
while [ "$1" != --report ]; do shift; done
[ {is_reported} = 0 ] || echo told > "$2"
exit {code}
"""


@pytest.mark.parametrize(
    ("code", "is_reported", "told"),
    [(0, 1, 0), (1, 1, 0), (1, 0, 1), (75, 1, 1), (78, 0, 1), (137, 0, 1), (143, 1, 1)],
)
def test_broken_pictures_alone_are_no_failure_of_the_job(
    job: dict[str, Any], tmp_path: Path, code: int, is_reported: int, told: int
) -> None:
    """KubeRay's shell takes the entrypoint apart, and `ray job submit` makes one line of its words again.

    That all is done is believed only of who could write its report; one of an earlier run is none.
    """
    program, report = tmp_path / "maskdrop", tmp_path / "report.csv"
    program.write_text(STAND_IN.format(is_reported=is_reported, code=code))
    program.chmod(0o755)
    report.write_text("of an earlier run")
    entrypoint = job["spec"]["entrypoint"].replace("/tmp/report.csv", report.name)
    line = shlex.join(shlex.split(entrypoint))
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(line, shell=True, env=path, cwd=tmp_path, check=False)
    assert done.returncode == told


def test_the_image_can_be_built_as_the_manifest_says(job: dict[str, Any]) -> None:
    told = (ROOT / "etc" / "kuberay.yaml").read_text()
    recipe = (ROOT / "Containerfile").read_text()
    for argument in re.findall(r"--build-arg (\w+)=", told):
        assert f"ARG {argument}=" in recipe, argument
    assert re.search(r"^ENV PATH=/opt/maskdrop/bin:", recipe, re.MULTILINE), "KubeRay starts `ray` by name"
    assert "/etc/profile.d/" in recipe, "before 1.4 it does so in a login shell, which sets PATH anew"


def test_the_job_is_a_batch_that_maskdrop_knows(job: dict[str, Any]) -> None:
    shell, _, line = shlex.split(job["spec"]["entrypoint"])
    assert shell == "sh"
    _, _, batch = line.partition(" || ")[0].partition("; ")
    program, command, source, results, *options = shlex.split(batch)
    assert (program, command) == ("maskdrop", "batch")
    assert source.startswith("s3://")
    assert results.startswith("s3://")
    answer = subprocess.run(
        [sys.executable, "-m", "maskdrop", "batch", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin", "COLUMNS": "200", "PYTHONPATH": str(ROOT / "daemon")},
    )
    if "--engine" not in answer.stdout:
        pytest.skip("this maskdrop has no other engine than its own")
    for option in options:
        assert not option.startswith("--") or option in answer.stdout, option
