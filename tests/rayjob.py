"""What a RayJob may be: KubeRay's fields and rules by our schema, its pods by Kubernetes' own."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "schemas" / "rayjob.json").read_text())
KUBERNETES = "1.31"
"""The version whose pods are checked; older than most clusters, so nothing new is asked for."""


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The head and the groups of workers; none where a cluster that is there already is used."""
    cluster = job["spec"].get("rayClusterSpec")
    return [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])] if cluster else []


def templates(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Of all pods that the job names, the one that submits it last."""
    submitter = job["spec"].get("submitterPodTemplate")
    return [group["template"] for group in groups(job)] + ([submitter] if submitter else [])


def check(job: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError, of which kubernetes_validate's is a kind."""
    jsonschema.Draft202012Validator(SCHEMA).validate(job)
    for group in groups(job):
        # No schema can compare two fields.
        if group.get("minReplicas", 0) > group.get("maxReplicas", group.get("minReplicas", 0)):
            raise jsonschema.ValidationError(f"{group['groupName']}: minReplicas is above maxReplicas")
    for template in templates(job):
        pods = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {}, "template": template}
        kubernetes_validate.validate(pods, KUBERNETES, strict=True)
