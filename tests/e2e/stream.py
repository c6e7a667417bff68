"""The stream as processes, a store with its append-only file, a collector, updaters: each may be killed."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from segue.adapters import embedded
from tests.conftest import ROOT, free_port

KEY = "1:" + "5e" * 32
WRITE_KEY = "write-key-of-the-tests"
PARTITIONS = 4


@dataclass
class Stream:
    """The processes by name, their logs and everything they keep, under `directory`."""

    directory: Path
    updaters: int = 1
    settings: dict[str, str] = field(default_factory=dict)
    store_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    grpc_port: int = field(default_factory=free_port)
    running: dict[str, subprocess.Popen] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return ["store", "collector", *(f"updater-{number}" for number in range(self.updaters))]

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.store_port}/0"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def lake(self) -> Path:
        return self.directory / "lake"

    def start(self, name: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                self._command(name), cwd=ROOT, env=self._environment(), stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """End it as a crash does: at once, whatever it is doing."""
        self.running[name].send_signal(signal.SIGKILL)
        self.running[name].wait()

    def stop(self, name: str) -> int:
        """Ask it to end; returns its exit status."""
        self.running[name].terminate()
        return self.running.pop(name).wait(60)

    def await_store(self) -> None:
        self._await(lambda: embedded.listens("127.0.0.1", self.store_port), "store")

    def await_ready(self) -> None:
        self._await(lambda: answers(f"{self.url}/readyz"), "collector")

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def _await(self, happened, name: str) -> None:
        deadline = time.monotonic() + 60
        while not happened():
            assert self.running[name].poll() is None, f"{name} ended:\n{self.log(name)[-3000:]}"
            assert time.monotonic() < deadline, f"{name} is not ready:\n{self.log(name)[-3000:]}"
            time.sleep(0.05)

    def _command(self, name: str) -> list[str]:
        if name == "store":
            (self.directory / "store").mkdir(exist_ok=True)
            return embedded.command(self.directory / "store", self.store_port)
        return [sys.executable, "-m", f"services.{name.partition('-')[0]}"]

    def _environment(self) -> dict[str, str]:
        for file, text in (("keys", KEY), ("write-keys", f"tests:{WRITE_KEY}")):
            path = self.directory / file
            path.write_text(text + "\n")
            path.chmod(0o600)
        own = {
            "SEGUE_COLLECTOR_REDIS_URL": self.redis_url,
            "SEGUE_COLLECTOR_HTTP_PORT": str(self.http_port),
            "SEGUE_COLLECTOR_GRPC_PORT": str(self.grpc_port),
            "SEGUE_COLLECTOR_GRPC_DRAIN_SECONDS": "0.5",
            "SEGUE_COLLECTOR_KEYS": str(self.directory / "keys"),
            "SEGUE_COLLECTOR_WRITE_KEYS": str(self.directory / "write-keys"),
            "SEGUE_COLLECTOR_LOG_PARTITIONS": str(PARTITIONS),
            "SEGUE_UPDATER_REDIS_URL": self.redis_url,
            "SEGUE_UPDATER_LAKE": str(self.lake),
            "SEGUE_UPDATER_LOG_PARTITIONS": str(PARTITIONS),
            "SEGUE_UPDATER_METRICS_PORT": "0",
            "SEGUE_UPDATER_FLUSH_SECONDS": "0.2",
        }
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("SEGUE_") and key != "PROMETHEUS_MULTIPROC_DIR"
        }
        return inherited | own | self.settings


@contextmanager
def stream(directory: Path, *, updaters: int = 1, **settings: str) -> Iterator[Stream]:
    """A stream whose processes are all up; whatever still runs in the end is killed."""
    made = Stream(directory, updaters, settings)
    try:
        made.start("store")
        made.await_store()
        for name in made.names[1:]:
            made.start(name)
        made.await_ready()
        yield made
    finally:
        for process in made.running.values():
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
