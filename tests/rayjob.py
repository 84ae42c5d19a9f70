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
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def check(job: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError, of which kubernetes_validate's is a kind."""
    jsonschema.Draft202012Validator(SCHEMA).validate(job)
    for group in groups(job):
        pods = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {}, "template": group["template"]}
        kubernetes_validate.validate(pods, KUBERNETES, strict=True)
