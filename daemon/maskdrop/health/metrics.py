"""Metrics for Prometheus: a file for node_exporter's textfile collector, a page on loopback, or both.

The one module that knows prometheus_client. A scrape reads what the supervisor's loop published
last, a pair of frozen values behind one reference, so no other thread touches the loop's state.
Metrics name no picture: people who may read them need not know what is dropped.
"""

import contextlib
import signal
import socket
import socketserver
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import chain
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from maskdrop.config import Settings
from maskdrop.config_file import fault
from maskdrop.durable import replace_file
from maskdrop.health.file import Health, State
from maskdrop.health.totals import BUCKETS_S, Histogram, Totals
from maskdrop.names import printable

ADDRESS = "127.0.0.1"
"""Loopback only: readers elsewhere go through a proxy, which the administrator sets up and protects."""

PATIENCE_S = 5.0
"""Seconds that a client may be silent in the middle of its request: there is only one thread."""

_NEVER_S = 3600.0

_UPDATED = "maskdrop_last_update_timestamp_seconds"


_MODE = 0o644
"""Readable for all: the collector runs as another user, and nothing in the file tells what is dropped."""


class Metrics(Collector):
    """Keeps what is published, and gives it to those who ask."""

    def __init__(self, settings: Settings) -> None:
        """Listen, if a port is configured.

        Raises:
            ConfigurationError: the port can't be listened on.
        """
        self._file = settings.metrics.file
        self._inbox = printable(settings.folders.inbox)
        self._latest: tuple[Health, Totals] | None = None
        self._content = b""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._server: _Server | None = None
        if settings.metrics.port is not None:
            self._server = _serve(settings.metrics.port, self._registry)

    def close(self) -> None:
        """Release the port."""
        if self._server is None:
            return
        stopping = Thread(target=self._server.shutdown, name="metrics-end")
        stopping.start()
        while stopping.is_alive():  # the server notices that it is to end only when somebody connects
            self._server.hang_up()
            with contextlib.suppress(OSError):
                socket.create_connection((ADDRESS, self._server.server_port), PATIENCE_S).close()
            stopping.join(0.05)
        self._server.server_close()

    def publish(self, health: Health, totals: Totals) -> None:
        """Make these the metrics from now on.

        Raises:
            OSError: the file can't be written; the old one stays.
        """
        self._latest = (health, totals)
        if self._file is not None:
            self._content = generate_latest(self._registry)
            replace_file(self._file, self._content, _MODE)

    def renew(self, updated_at: str) -> None:
        """Publish the last metrics again, as of this time (ISO 8601).

        Raises:
            OSError: the file can't be written; the old one stays.
        """
        if self._latest is not None:
            health, totals = self._latest
            self._latest = (replace(health, updated_at=updated_at), totals)
        if self._file is not None:
            replace_file(self._file, at_another_time(self._content, updated_at), _MODE)

    def collect(self) -> Iterator[Metric]:
        """All metrics as published last; none before the first time.

        Each has the inbox as a label: node_exporter refuses two files with the same series, and a
        machine may have a daemon for each of several inboxes.
        """
        latest = self._latest
        if latest is not None:
            for metric in chain(_counters(*latest), _gauges(latest[0]), _durations(latest[1])):
                metric.samples = [
                    s._replace(labels={"inbox": self._inbox, **s.labels}) for s in metric.samples
                ]
                yield metric


def _counters(health: Health, totals: Totals) -> Iterator[Metric]:
    counts = health.counts
    yield _count("pictures_accepted", "Pictures taken into flight.", counts.accepted)
    yield _count("pictures_saved", "Pictures whose results are on disk.", counts.saved)
    yield _count("pictures_retried", "Pictures that went round again after a worker's death.", counts.retried)
    yield _counts("pictures_quarantined", "Pictures quarantined at a stage.", "stage", totals.quarantined)
    yield _counts("pictures_left", "Pictures left alone: gone, changed, unreadable.", "absence", totals.left)
    deaths = CounterMetricFamily(
        "maskdrop_worker_deaths", "Workers that died, hung or were unfit.", labels=("stage", "ending")
    )
    for labels, count in totals.deaths.items():
        deaths.add_metric(labels, count)
    yield deaths
    yield _counts("worker_restarts", "Workers started in place of dead ones.", "stage", totals.restarts)
    told = "Seconds that a stage's workers were at a picture; its rate over workers is their busy share."
    yield _counts("stage_busy_seconds", told, "stage", totals.busy_s)


def _gauges(health: Health) -> Iterator[Metric]:
    yield _gauges_by("state", "1 for the state that the daemon is in.", "state", _one_hot(health.state))
    yield _gauge("pictures_backlog", "Pictures in the inbox that are not taken.", health.backlog)
    yield _gauge("pictures_in_flight", "Pictures between inbox and outbox.", health.in_flight)
    steps = {step: count for step, count in health.queues.items() if step != "free_slots"}
    yield _gauges_by("queue_length", "Pictures that wait for a step.", "step", steps)
    yield _gauge("slots_free", "Slots that a picture could have now.", health.queues["free_slots"])
    stages = health.stages.items()
    workers = {name: stage.workers for name, stage in stages}
    yield _gauges_by("workers", "Workers that there are to be.", "stage", workers)
    ready = {name: stage.ready for name, stage in stages}
    yield _gauges_by("workers_ready", "Workers that can be given pictures.", "stage", ready)
    busy = {name: stage.busy for name, stage in stages}
    yield _gauges_by(
        "stage_busy_ratio", "Busy share of a stage's workers in the last ten seconds.", "stage", busy
    )
    started, updated = _unix_time(health.started_at), _unix_time(health.updated_at)
    yield _gauge("start_time_seconds", "When the daemon started, in Unix time.", started)
    yield GaugeMetricFamily(_UPDATED, "When these metrics were made, in Unix time.", updated)
    told = "Metrics are made anew so often, and at each change of state."
    yield _gauge("update_interval_seconds", told, health.interval_s)
    about = {
        "version": health.version,
        "model": health.model,
        "device": health.device,
        "precision": health.precision,
    }
    build = GaugeMetricFamily("maskdrop_build_info", "What runs; always 1.", labels=tuple(about))
    build.add_metric([printable(value) for value in about.values()], 1)
    yield build


def _durations(totals: Totals) -> Iterator[Metric]:
    stages = HistogramMetricFamily(
        "maskdrop_stage_duration_seconds", "Time of a picture in a stage, or of its batch.", labels=("stage",)
    )
    for stage, histogram in totals.durations.items():
        if stage != "total":
            stages.add_metric([stage], _buckets(histogram), histogram.sum_s)
    yield stages
    whole = totals.durations.get("total", Histogram())
    told = "Time from a picture's acceptance until its results were on disk."
    yield HistogramMetricFamily("maskdrop_picture_duration_seconds", told, _buckets(whole), whole.sum_s)


def at_another_time(content: bytes, updated_at: str) -> bytes:
    """The same metrics, in Prometheus's text format, as of a new time (ISO 8601)."""
    head, name, tail = content.partition(f"\n{_UPDATED}".encode())
    sample, end, rest = tail.partition(b"\n")
    labels, space, _ = sample.rpartition(b" ")
    value: str = floatToGoString(_unix_time(updated_at))  # type: ignore[no-untyped-call]
    return head + name + labels + space + value.encode() + end + rest


def _unix_time(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts with their upper bounds, as Prometheus has them."""
    bounds = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
    sums, total = [], 0
    for count in histogram.counts:
        total += count
        sums.append(float(total))
    return list(zip(bounds, sums, strict=True))


def _one_hot(state: State) -> dict[str, float]:
    return {each.value: float(each is state) for each in State}


def _count(name: str, told: str, value: float) -> Metric:
    return CounterMetricFamily(f"maskdrop_{name}", told, value)


def _counts(name: str, told: str, label: str, values: Mapping[str, float]) -> Metric:
    return _filled(CounterMetricFamily(f"maskdrop_{name}", told, labels=(label,)), values.items())


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"maskdrop_{name}", told, value)


def _gauges_by(name: str, told: str, label: str, values: Mapping[str, float]) -> Metric:
    return _filled(GaugeMetricFamily(f"maskdrop_{name}", told, labels=(label,)), values.items())


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Iterable[tuple[str, float]]) -> Metric:
    for label, value in values:
        family.add_metric([label], value)
    return family


class _Server(WSGIServer):
    """Answers one request after the other: however many come, they take one thread of the daemon's."""

    _asking: socket.socket | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        self._asking = request
        try:
            super().finish_request(request, client_address)
        finally:
            self._asking = None

    def hang_up(self) -> None:
        """Stop waiting for the request that is being read, if any: it may come a byte at a time."""
        asking = self._asking
        if asking is not None:
            with contextlib.suppress(OSError):
                asking.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        """As the parent's, without asking the name service for this machine's name, which may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Do nothing: a client that went away, or never said what it wanted, is no news of the daemon."""


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE_S

    def log_message(self, format: str, *args: object) -> None:
        """Do nothing: a line for each scrape would fill the log."""


def check_port(port: int) -> None:
    """Check that the port can be listened on now.

    Raises:
        ConfigurationError: it can't.
    """
    _listen(port).server_close()


def _listen(port: int) -> _Server:
    try:
        return _Server((ADDRESS, port), _Handler)
    except OSError as error:
        problem = f"{ADDRESS}:{port} can't be listened on ({error.strerror})"
        raise fault("metrics.port", port, problem, "name a free one, or leave it out") from error


def _serve(port: int, registry: CollectorRegistry) -> _Server:
    """Answer on loopback, in a thread of its own that waits in the kernel. prometheus_client's own server
    wakes twice a second to see whether it is to end; this one never ends before the daemon.

    Raises:
        ConfigurationError: the port can't be listened on.
    """
    server = _listen(port)
    server.set_app(make_wsgi_app(registry))
    thread = Thread(target=server.serve_forever, args=(_NEVER_S,), name="metrics", daemon=True)
    everything = signal.valid_signals()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, everything)  # signals are for the loop's thread
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return server
