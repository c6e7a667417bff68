"""The processes of a demonstration: the embedded server and the services, started, awaited and stopped."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from segue.adapters import embedded

LOOPBACK = "127.0.0.1"
READY_SECONDS = 90
STOP_SECONDS = 25


class DemoError(Exception):
    """Something of the demonstration did not come up; the text says where its log is."""


@dataclass
class Processes:
    """What runs, by name, each with its log file under `logs`."""

    logs: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: list[str], env: Mapping[str, str]) -> None:
        """Start `command` in a session of its own, its output into the log."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            log = files.enter_context((self.logs / f"{name}.log").open("wb"))
            self.running[name] = subprocess.Popen(  # noqa: S603 - our own commands, no shell
                command, env={**os.environ, **env}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def await_ready(self, name: str, url: str) -> None:
        """Wait until `url` answers 200.

        Raises:
            DemoError: the process ended, or took too long.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.running[name].poll() is not None:
                raise DemoError(f"{name} ended at once; its log is {self.logs / name}.log")
            if _answers(url):
                return
            time.sleep(0.2)
        raise DemoError(f"{name} was not ready after {READY_SECONDS} s; its log is {self.logs / name}.log")

    def stop(self) -> None:
        """Stop everything, in the reverse order of starting."""
        for process in reversed(self.running.values()):
            process.terminate()
        for process in reversed(self.running.values()):
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start_valkey(processes: Processes, directory: Path, port: int) -> None:
    """Start the embedded server on `port`, its data in `directory`.

    Raises:
        DemoError: it did not come up.
    """
    directory.mkdir(parents=True, exist_ok=True)
    processes.start("valkey", embedded.command(directory, port), {})
    deadline = time.monotonic() + READY_SECONDS
    while not embedded.listens(LOOPBACK, port):
        if processes.running["valkey"].poll() is not None or time.monotonic() > deadline:
            raise DemoError(f"the embedded server did not start; its log is {processes.logs}/valkey.log")
        time.sleep(0.05)


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules."""
    return [sys.executable, "-m", module, *arguments]


def free_port(wanted: int) -> int:
    """`wanted` if nothing listens there, else any free port."""
    if not embedded.listens(LOOPBACK, wanted):
        return wanted
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - a loopback address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
