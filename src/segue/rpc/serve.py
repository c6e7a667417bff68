"""The command that runs a service: `python -m services.<name>`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from segue.errors import SegueError
from segue.rpc.server import ServerSettings
from segue.rpc.settings import S, describe, read, setting


@dataclass(frozen=True, kw_only=True)
class ModelServerSettings(ServerSettings):
    """What every service that answers by a model reads from its environment."""

    redis_url: str = setting(
        "redis://127.0.0.1:6399", meaning="the online store, redis://user:password@host:port/db", secret=True
    )
    store_timeout_ms: int = setting(
        500, meaning="how long the online store may take to connect or to answer", low=1, high=60_000
    )
    model_store: Path = setting(Path(".segue/bentoml"), meaning="the BentoML home that holds the bundles")
    plans: Path = setting(Path(".segue/plans"), meaning="where `segue plan` publishes the serving plans")


def main(
    service: str, settings: type[S], *, check: Callable[[S], object], arguments: Sequence[str] | None = None
) -> NoReturn:
    """Replace this process by BentoML's server for `service` (`module:Class`); `--help` lists the settings.

    BentoML starts a worker that failed again, without end: right while the online store is not up, useless where the
    settings are invalid or `check` refuses them. That is told in one line, with exit status 1.
    """
    parser = argparse.ArgumentParser(
        description=f"Serve {service} over gRPC and HTTP. Settings are environment variables:",
        epilog=describe(settings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--http-host", default="127.0.0.1", help="address of the HTTP server")
    parser.add_argument("--http-port", type=int, default=3000, help="port of the HTTP server")
    options = parser.parse_args(arguments)
    try:
        check(read(settings, os.environ))
    except SegueError as error:
        sys.exit(f"{service}: {error}")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    # Default thread pools make a model of one millisecond take twelve under load.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    command = [sys.executable, "-m", "bentoml", "serve", service]
    where = ["--host", options.http_host, "--port", str(options.http_port)]
    os.execv(command[0], [*command, *where])  # noqa: S606 - our own arguments, no shell
