"""An HTTP server that answers kubectl as a Kubernetes API server with KubeRay's RayJob would.

It speaks only what `kubectl apply` asks for, and starts nothing of what it takes. It refuses more than a
real one: also what KubeRay's operator finds wrong only afterwards.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema

from rayjob import check

JOBS = "/apis/ray.io/v1/namespaces/default/rayjobs"
_DEFINITIONS = "/apis/apiextensions.k8s.io/{}/customresourcedefinitions"
_VERBS = ["create", "get", "list", "patch"]


@dataclass(frozen=True)
class Stored:
    """What reached the server.

    Attributes:
        jobs: RayJobs that are kept, by name.
        tried: names of RayJobs that were checked, and not kept because kubectl asked for that.
    """

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)


def _resources(version: str, *resources: tuple[str, str, bool]) -> dict[str, Any]:
    listed = [
        {"name": name, "singularName": kind.lower(), "kind": kind, "namespaced": inside, "verbs": _VERBS}
        for name, kind, inside in resources
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}


def _group(name: str) -> dict[str, Any]:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


_RAYJOB = {
    "kind": "CustomResourceDefinitionList",
    "apiVersion": "apiextensions.k8s.io/v1",
    "metadata": {},
    "items": [
        {
            "kind": "CustomResourceDefinition",
            "apiVersion": "apiextensions.k8s.io/v1",
            "metadata": {"name": "rayjobs.ray.io"},
            "spec": {"group": "ray.io", "names": {"kind": "RayJob", "plural": "rayjobs"}},
        }
    ],
}

_TOLD: dict[str, dict[str, Any]] = {
    "/version": {"major": "1", "minor": "31", "gitVersion": "v1.31.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group("ray.io"), _group("apiextensions.k8s.io")],
    },
    "/api/v1": _resources("v1", ("namespaces", "Namespace", False)),
    "/apis/ray.io/v1": _resources("ray.io/v1", ("rayjobs", "RayJob", True)),
    "/apis/apiextensions.k8s.io/v1": _resources(
        "apiextensions.k8s.io/v1", ("customresourcedefinitions", "CustomResourceDefinition", False)
    ),
    _DEFINITIONS.format("v1"): _RAYJOB,
    _DEFINITIONS.format("v1beta1"): _RAYJOB,  # asked by kubectl 1.20 whatever the server says it has
}


def _message(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that is a string or a message itself."""
    length, size = bytearray(), len(content)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def _openapi() -> bytes:
    """The least OpenAPI document from which kubectl sees that the server can be asked for a dry run.

    kubectl reads it as protobuf only. How a Namespace is patched tells it how all custom resources are.
    """
    kind = _message(1, b"x-kubernetes-group-version-kind") + _message(
        2, _message(2, b'{group: "", version: v1, kind: Namespace}\n')
    )
    asked = [
        _message(8, _message(1, _message(2, _message(3, _message(2, b"query") + _message(4, name)))))
        for name in (b"dryRun", b"fieldValidation")
    ]
    patch = _message(8, b"".join(asked) + _message(13, kind))
    paths = _message(2, _message(1, b"/api/v1/namespaces/{name}") + _message(2, patch))
    return _message(1, b"2.0") + _message(8, paths)


def _failure(code: int, reason: str, message: str) -> dict[str, Any]:
    kind = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**kind, "code": code, "reason": reason, "message": message}


def _refusal(name: str, error: jsonschema.ValidationError) -> dict[str, Any]:
    cause = {
        "reason": "FieldValueInvalid",
        "field": error.json_path.removeprefix("$."),
        "message": error.message,
    }
    details = {"name": name, "group": "ray.io", "kind": "RayJob", "causes": [cause]}
    message = f'RayJob.ray.io "{name}" is invalid: {cause["field"]}: {error.message}'
    return {**_failure(422, "Invalid", message), "details": details}


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def stored(self) -> Stored:
        stored: Stored = self.server.stored  # type: ignore[attr-defined]
        return stored

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        job = self.stored.jobs.get(path.removeprefix(f"{JOBS}/"))
        if path == "/openapi/v2":
            self._send(200, _openapi(), "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
        elif path in _TOLD or job:
            self._tell(200, _TOLD.get(path) or job or {})
        else:
            self._tell(404, _failure(404, "NotFound", f"{path} not found"))

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if address.path != JOBS:
            self._tell(404, _failure(404, "NotFound", f"{address.path} not found"))
            return
        name = job["metadata"]["name"]
        try:
            check(job)
        except jsonschema.ValidationError as error:
            self._tell(422, _refusal(name, error))
            return
        if parse_qs(address.query).get("dryRun") == ["All"]:
            self.stored.tried.append(name)
        else:
            self.stored.jobs[name] = job
        self._tell(201, job)

    def _tell(self, code: int, answer: dict[str, Any]) -> None:
        self._send(code, json.dumps(answer).encode(), "application/json")

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Shown by pytest where a test fails."""
        print(format % args)


@contextmanager
def serving() -> Iterator[tuple[str, Stored]]:
    """The server's address, and what reaches it."""
    stored = Stored()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        server.stored = stored  # type: ignore[attr-defined]
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", stored
        finally:
            server.shutdown()
            thread.join()
