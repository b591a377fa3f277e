"""/healthz and /metrics on loopback, served from a thread of the ``up`` process.

/healthz is one JSON object and 200, or 503 while a component is down, given up, stale or in error.
/metrics is the Prometheus text format. Both are made when asked for; nothing is measured in between.
"""

from __future__ import annotations

import errno
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headwater import metrics
from headwater.client.evaluation import Status
from headwater.errors import ConfigError, HeadwaterError

HOST = "127.0.0.1"
"""Never another: the endpoints have no authentication."""
Document = Callable[[], Mapping[str, Any]]


class StatusServer:
    """Serves until ``close``. ``port`` is the one it got when 0 was asked for."""

    def __init__(self, port: int, health: Document, status: Document) -> None:
        registry = CollectorRegistry()
        registry.register(StatusCollector(health, status))
        try:
            self._server = ThreadingHTTPServer((HOST, port), _handler(health, registry))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise ConfigError(
                f"port {port} is taken by another program",
                where=f"http_port, {HOST}",
                todo="Set another http_port under [settings], or 0 for a free one.",
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(health: Document, registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "headwater"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/healthz":
                document = health()
                body = json.dumps(document, default=str).encode()
                self._answer(200 if document["status"] == "ok" else 503, "application/json", body)
            elif path == "/metrics":
                try:
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                except HeadwaterError as error:  # no figures is an answer a scraper understands; wrong ones are not
                    self._answer(503, "text/plain", f"{error}\n".encode())
            else:
                self._answer(404, "text/plain", b"There are /healthz and /metrics here.\n")

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's signature
            """A scrape every few seconds is no news."""

    return Handler


class StatusCollector(Collector):
    """The status document as metrics. A figure nobody tells is left out, never shown as 0."""

    def __init__(self, health: Document, status: Document) -> None:
        self._health = health
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        yield from _gauges((), {metrics.POSITION: "position", metrics.INPUT_POSITION: "input_position"}, [status])
        yield from self._sources(status["sources"])
        yield from self._views(status["views"])
        yield from self._jobs(status["jobs"])
        yield from _gauges(
            ("component",),
            {metrics.BEAT_AGE_SECONDS: "age_s"},
            status["components"],
        )
        yield _gauge(metrics.TOPICS, (), [((), len(status["topics"]))])
        yield from _partitions(status["partitions"])
        yield from _groups(status["groups"])
        yield from self._components(self._health()["components"])

    def _sources(self, found: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
        up = [((each["name"],), float(each["state"] in ("copying", "streaming"))) for each in found]
        yield _gauge(metrics.SOURCE_UP, ("source",), up)
        yield from _gauges(
            ("source",),
            {metrics.SOURCE_LAG_BYTES: "lag_bytes", metrics.SOURCE_ROWS_PER_SECOND: "rows_per_s"},
            found,
        )
        yield from _gauges(("source",), {metrics.SOURCE_LAG_SECONDS: "lag_ms"}, found, scale=1e-3)
        slots = {metrics.SOURCE_WAL_BYTES: "retained_wal_bytes", metrics.SOURCE_WAL_SAFE_BYTES: "safe_wal_bytes"}
        yield from _gauges(("source",), slots, found)
        warned = [((each["name"],), float(bool(each.get("slot_warning")))) for each in found]
        yield _gauge(metrics.SOURCE_SLOT_WARNING, ("source",), warned)
        counted = {metrics.SOURCE_ROWS: "rows", metrics.SOURCE_COMMITS: "commits"}
        counted |= {metrics.SOURCE_SPILL_BYTES: "spill_bytes", metrics.SOURCE_STREAM_BYTES: "stream_bytes"}
        yield from _counters(("source",), counted, found)

    def _views(self, found: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
        live = [((each["name"],), float(each["state"] == "live")) for each in found]
        yield _gauge(metrics.VIEW_UP, ("view",), live)
        counted = {metrics.VIEW_LAG_COMMITS: "lag_commits", metrics.VIEW_LATE_ROWS: "late_rows"}
        yield from _gauges(("view",), counted, found)
        yield from _gauges(("view",), {metrics.VIEW_LAG_SECONDS: "lag_ms"}, found, scale=1e-3)
        steps = {metrics.STEP_SECONDS_LAST: "step_ms_last", metrics.STEP_SECONDS_P95: "step_ms_p95"}
        yield from _gauges((), steps, found[:1], scale=1e-3)

    def _jobs(self, found: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
        live = [((each["name"],), float(each["state"] == "live")) for each in found]
        yield _gauge(metrics.JOB_UP, ("job",), live)
        yield from _gauges(("job",), {metrics.JOB_LAG_ROWS: "lag_rows", metrics.JOB_STATE_ROWS: "state_rows"}, found)
        seconds = {metrics.JOB_LAG_SECONDS: "lag_ms", metrics.JOB_STEP_SECONDS_P95: "step_ms_p95"}
        yield from _gauges(("job",), seconds, found, scale=1e-3)

    def _components(self, found: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
        up = [((each["name"],), float(each["ok"])) for each in found]
        yield _gauge(metrics.COMPONENT_UP, ("component",), up)
        counted = {metrics.COMPONENT_RESTARTS: "restarts", metrics.COMPONENT_ERRORS: "errors"}
        yield from _counters(("component",), counted, found)


def _partitions(found: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    counts = Counter(each["topic"] for each in found)
    yield _gauge(metrics.KAFKA_PARTITIONS, ("topic",), [((topic,), count) for topic, count in counts.items()])
    for name, key in (
        (metrics.KAFKA_PARTITION_OFFSET, "current_offset"),
        (metrics.KAFKA_PARTITION_OLDEST, "oldest_offset"),
    ):
        values = [((each["topic"], str(each["partition"])), float(each[key])) for each in found]
        yield _gauge(name, ("topic", "partition"), values)


def _groups(found: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    for name, total, key in (
        (metrics.KAFKA_GROUP_OFFSET, metrics.KAFKA_GROUP_OFFSET_SUM, "offset"),
        (metrics.KAFKA_GROUP_LAG, metrics.KAFKA_GROUP_LAG_SUM, "lag_rows"),
    ):
        sums: dict[tuple[str, str], float] = {}
        values = []
        for group in found:
            for each in group["partitions"]:
                values.append(((group["name"], each["topic"], str(each["partition"])), float(each[key])))
                place = (group["name"], each["topic"])
                sums[place] = sums.get(place, 0.0) + each[key]
        yield _gauge(name, ("consumergroup", "topic", "partition"), values)
        yield _gauge(total, ("consumergroup", "topic"), list(sums.items()))
    by_group = ("consumergroup",)
    yield _gauge(metrics.KAFKA_GROUP_MEMBERS, by_group, [((g["name"],), float(len(g["members"]))) for g in found])
    yield _gauge(metrics.GROUP_LAG_SECONDS, by_group, [((g["name"],), g["lag_s"]) for g in found])
    yield _gauge(metrics.GROUP_STATUS, by_group, [((g["name"],), float(Status[g["status"]])) for g in found])


def _gauge(name: str, labels: tuple[str, ...], values: Sequence[tuple[Sequence[str], float]]) -> Metric:
    family = GaugeMetricFamily(name, metrics.HELP[name], labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _rows(
    labels: tuple[str, ...], key: str, documents: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[list[str], float]]:
    for each in documents:
        if each.get(key) is not None:
            yield ([each["name"]] if labels else []), float(each[key])


def _gauges(
    labels: tuple[str, ...], names: Mapping[str, str], documents: Sequence[Mapping[str, Any]], scale: float = 1.0
) -> Iterator[Metric]:
    for name, key in names.items():
        family = GaugeMetricFamily(name, metrics.HELP[name], labels=labels)
        for label, value in _rows(labels, key, documents):
            family.add_metric(label, value * scale)
        yield family


def _counters(
    labels: tuple[str, ...], names: Mapping[str, str], documents: Sequence[Mapping[str, Any]]
) -> Iterator[Metric]:
    for name, key in names.items():
        family = CounterMetricFamily(name, metrics.HELP[name], labels=labels)
        for label, value in _rows(labels, key, documents):
            family.add_metric(label, value)
        yield family
