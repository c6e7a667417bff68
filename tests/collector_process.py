"""A collector as a process of its own, and what it left in its log."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from redis import Redis

from segue.events import pseudonym
from segue.v1 import collector_pb2 as pb
from segue.v1.collector_pb2_grpc import CollectorServiceStub
from segue.v1.log_pb2 import LogEntry
from tests.conftest import ROOT

KEY = bytes.fromhex("5e" * 32)
FORMER_KEY = bytes.fromhex("0f" * 32)
WRITE_KEY = "write-key-of-the-tests"
BEARER = [("authorization", f"Bearer {WRITE_KEY}")]
PARTITIONS = 4
READY_SECONDS = 30
PORTS = re.compile(r"HTTP on port (\d+), gRPC on port (\d+)")


@dataclass(frozen=True)
class Collector:
    """A ready collector."""

    process: subprocess.Popen[bytes]
    log: Path
    http_port: int
    grpc_port: int
    redis: Redis
    http: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """POST `body`, bytes as they are, anything else as JSON, with the write key unless `auth` says otherwise."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return self.http.post(path, **({"auth": (WRITE_KEY, "")} | content | options))

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)

    @contextmanager
    def stub(self) -> Iterator[CollectorServiceStub]:
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            yield CollectorServiceStub(channel)

    def collect(self, *events: pb.SubmittedEvent, **fields: Any) -> pb.CollectEventsResponse:
        with self.stub() as stub:
            return stub.CollectEvents(pb.CollectEventsRequest(events=events, **fields), metadata=BEARER, timeout=20)

    def entries(self) -> list[LogEntry]:
        """Every entry in the log, each partition's in order."""
        streams = sorted(key for key in self.redis.scan_iter(_type="stream"))
        raw = [fields for stream in streams for _, fields in self.redis.xrange(stream)]
        return [LogEntry.FromString(fields[b"entry"]) for fields in raw]

    def events_of(self, customer: str) -> list[LogEntry]:
        return [entry for entry in self.entries() if entry.customer == customer and entry.HasField("event")]

    def links(self) -> set[tuple[str, str]]:
        return {(entry.customer, entry.link.target) for entry in self.entries() if entry.HasField("link")}

    def metric(self, name: str) -> float:
        """The value of a metric, by its name with labels as it is written."""
        found = [line for line in self.get("/metrics").text.splitlines() if line.startswith(name + " ")]
        return float(found[0].rpartition(" ")[2])

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def user(user_id: str) -> str:
    return pseudonym(user_id, KEY)


@contextmanager
def collector(directory: Path, redis_url: str, *, former_key: bool = False, **settings: str) -> Iterator[Collector]:
    """A collector over the Redis at `redis_url`; told to leave it must do so with status 0, unless it was killed."""
    directory.mkdir(exist_ok=True)
    ring = f"now:{KEY.hex()}\n" + (f"former:{FORMER_KEY.hex()}\n" if former_key else "")
    for name, text in (("keys", ring), ("write-keys", f"tests:{WRITE_KEY}\n")):
        (directory / name).write_text(text)
    defaults = {
        "REDIS_URL": redis_url,
        "HTTP_PORT": "0",
        "GRPC_PORT": "0",
        "GRPC_DRAIN_SECONDS": "0.5",
        "KEYS": str(directory / "keys"),
        "WRITE_KEYS": str(directory / "write-keys"),
        "LOG_PARTITIONS": str(PARTITIONS),
    }
    # Feast, imported by other tests, makes whoever inherits its directory of counters count in files.
    inherited = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    own = {f"SEGUE_COLLECTOR_{name}": value for name, value in (defaults | settings).items()}
    log = directory / "collector.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.collector"], cwd=ROOT, env=inherited | own, stdout=output, stderr=output
        )
    try:
        http_port, grpc_port = _ports(process, log)
        url = f"http://127.0.0.1:{http_port}"
        with Redis.from_url(redis_url) as redis, httpx.Client(base_url=url, timeout=20, verify=False) as http:
            yield Collector(process, log, http_port, grpc_port, redis, http)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()[-3000:]
    finally:
        process.kill()
        process.wait()


def _ports(process: subprocess.Popen[bytes], log: Path) -> tuple[int, int]:
    deadline = time.monotonic() + READY_SECONDS
    while not (told := PORTS.search(log.read_text())):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.02)
    return int(told[1]), int(told[2])
