"""The whole path on one machine: events in, models trained, gRPC answers out.

Everything is written under .segue, which is emptied first. Nothing is left running unless --keep is given.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from demo.processes import DemoError, Processes, free_port, python, start_valkey
from segue.simulator.config import DEMO_KEY

HOME = Path(".segue")
PORTS = {
    "valkey": 6399,
    "propensity http": 3001,
    "propensity": 50051,
    "recommendation http": 3002,
    "recommendation": 50052,
    "collector http": 3003,
    "collector": 50053,
    "updater": 9101,
}
"""The updater's is that of its metrics."""

CONFIGS = {"deskdrop": ("engage_7d", "deskdrop"), "": ("purchase_7d", "shop")}
"""Per data set: the configuration of the propensity and of the sequence model; "" stands for any other."""

NEW_EVENT = {"deskdrop": "product_wishlisted", "": "product_added"}
"""The kind of the event that is sent at the end."""

WRITE_KEY = "write-key-of-the-demonstration"
"""What the demonstration's collector, on loopback, takes events for."""

console = Console()


def main() -> int:
    """Run the demonstration; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="a data set or a Parquet/CSV event log, instead of a simulated shop")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    options = parser.parse_args()
    if not Path("feature_repo/feature_store.yaml").is_file():
        print("demo: run it in the root of the repository", file=sys.stderr)
        return 2
    started = time.monotonic()
    processes = Processes(HOME / "logs")
    try:
        ports = run(processes, options.data)
    except (DemoError, subprocess.CalledProcessError) as error:
        console.print(f"[red]demo: {error}[/red]", highlight=False)
        processes.stop()
        return 1
    except BaseException:
        processes.stop()
        raise
    console.rule(f"done in {time.monotonic() - started:.0f} s")
    if options.keep:
        tell(processes, ports)
    else:
        processes.stop()
        console.print(
            "Everything is stopped; results lie in .segue: lake, registry.db, bentoml (bundles), reports, logs."
        )
        console.print("Again with everything left running: make demo KEEP=1", highlight=False)
    return 0


def run(processes: Processes, data: Path | None) -> dict[str, int]:
    """All steps; returns the ports in use."""
    shutil.rmtree(HOME, ignore_errors=True)
    ports = {name: free_port(port) for name, port in PORTS.items()}
    console.rule("1 events into the lake")
    name = write_events(data)
    console.rule("2 features: snapshots, Feast registry, online store")
    start_valkey(processes, (HOME / "valkey").resolve(), ports["valkey"])
    step(ports, "segue", "features")
    propensity_config, sequence_config = CONFIGS.get(name, CONFIGS[""])
    console.rule("3 models: sequence here, propensity beside it")
    train(ports, propensity_config, sequence_config)
    console.rule("4 services")
    start_services(processes, ports, propensity_config)
    start_stream(processes, ports)
    console.rule("5 a backend asks")
    asyncio.run(ask(ports, NEW_EVENT.get(name, NEW_EVENT[""])))
    return ports


def write_events(data: Path | None) -> str:
    """Fill the lake; returns the data set's name, empty for the simulated shop."""
    from segue.__main__ import SHOP
    from segue.adapters import ingest
    from segue.adapters.lake import Lake
    from segue.errors import InvalidInput

    lake = Lake(HOME / "lake")
    if data is None:
        ingest.simulate_shop(lake, HOME / "truth", **SHOP)
        return ""
    try:
        return ingest.load_data_set(lake, data).name
    except InvalidInput as error:
        raise DemoError(str(error)) from error


def step(ports: dict[str, int], module: str, *arguments: str) -> None:
    """Run one of our commands to its end, its output on the screen."""
    subprocess.run(python(module, *arguments), check=True, env=environment(ports))  # noqa: S603 - ours, no shell


def environment(ports: dict[str, int]) -> dict[str, str]:
    """This process's environment, with the address of the online store."""
    return {**os.environ, "SEGUE_REDIS": f"127.0.0.1:{ports['valkey']}"}


def train(ports: dict[str, int], propensity_config: str, sequence_config: str) -> None:
    """Train both models at once, one core each; what the propensity job has to say is shown when it ends."""
    log = HOME / "logs" / "train-propensity.log"
    command = python("models.propensity", "train", "--config", f"models/propensity/configs/{propensity_config}.toml")
    with log.open("wb") as file:
        width = {"COLUMNS": str(console.width)}
        job = subprocess.Popen(  # noqa: S603 - our own command, no shell
            command, env=environment(ports) | width, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        step(ports, "models.sequence", "train", "--config", f"models/sequence/configs/{sequence_config}.toml")
        with console.status("training the propensity model"):
            status = job.wait()
    finally:
        job.terminate()
    print(log.read_text(), end="")
    if status:
        raise subprocess.CalledProcessError(status, command)


def start_stream(processes: Processes, ports: dict[str, int]) -> None:
    """Start collector and updater and wait until they are ready."""
    redis_url = f"redis://127.0.0.1:{ports['valkey']}"
    settings = {
        "SEGUE_COLLECTOR_REDIS_URL": redis_url,
        "SEGUE_COLLECTOR_GRPC_PORT": str(ports["collector"]),
        "SEGUE_COLLECTOR_HTTP_PORT": str(ports["collector http"]),
        "SEGUE_COLLECTOR_KEYS": str(secret(HOME / "keys", f"demo:{DEMO_KEY.hex()}")),
        "SEGUE_COLLECTOR_WRITE_KEYS": str(secret(HOME / "write-keys", f"demo:{WRITE_KEY}")),
        "SEGUE_UPDATER_REDIS_URL": redis_url,
        "SEGUE_UPDATER_LAKE": str(HOME / "lake"),
        "SEGUE_UPDATER_METRICS_PORT": str(ports["updater"]),
    }
    processes.start("collector", python("services.collector"), settings)
    processes.start("updater", python("services.updater"), settings)
    with console.status("starting collector and updater"):
        processes.await_ready("collector", f"http://127.0.0.1:{ports['collector http']}/readyz")
        processes.await_ready("updater", f"http://127.0.0.1:{ports['updater']}/metrics")
    console.print(f"collector: gRPC on 127.0.0.1:{ports['collector']}, HTTP on 127.0.0.1:{ports['collector http']}")


def secret(path: Path, text: str) -> Path:
    """A file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text + "\n")
    return path


def start_services(processes: Processes, ports: dict[str, int], outcome: str) -> None:
    """Start both services and wait until they are ready."""
    redis_url = f"redis://127.0.0.1:{ports['valkey']}"
    for name, further in (("propensity", {"BUNDLES": outcome}), ("recommendation", {})):
        prefix = f"SEGUE_{name.upper()}_"
        settings = {"REDIS_URL": redis_url, "GRPC_PORT": str(ports[name]), **further}
        environment = {f"{prefix}{key}": value for key, value in settings.items()}
        processes.start(name, python(f"services.{name}", "--http-port", str(ports[f"{name} http"])), environment)
    with console.status("starting the services"):
        for name in ("propensity", "recommendation"):
            processes.await_ready(name, f"http://127.0.0.1:{ports[f'{name} http']}/readyz")
            console.print(f"{name}: gRPC on 127.0.0.1:{ports[name]}, HTTP on 127.0.0.1:{ports[f'{name} http']}")


async def ask(ports: dict[str, int], kind: str) -> None:
    """Ask about one customer, send one event, ask again."""
    from demo.calls import Backend, show_change, show_propensity
    from segue.adapters.lake import Lake

    lake = Lake(HOME / "lake")
    as_of_ms = lake.time_range()[1] + 60_000
    targets = (f"127.0.0.1:{ports[name]}" for name in ("propensity", "recommendation", "collector"))
    backend = Backend(*targets, write_key=WRITE_KEY)
    try:
        customer = await backend.choose(lake.recent_customers(200), as_of_ms)
        console.print(f"customer {customer}, as of the end of the log", highlight=False)
        before = await backend.ask(customer, as_of_ms)
        show_propensity(console, before[0])
        wanted = before[1].items[0].item
        catalogue = lake.catalogue()
        prices = dict(zip(catalogue.external_id, catalogue.price_minor, strict=True))
        token = await backend.send(customer, kind, wanted, int(prices.get(wanted, 0)), as_of_ms)
        console.print(f"\nnow the customer does this: {kind} {wanted}\n", highlight=False)
        after = await backend.ask(customer, as_of_ms + 1_000, read_after=token)
        show_propensity(console, after[0])
        show_change(console, before, after)
    finally:
        await backend.close()


def tell(processes: Processes, ports: dict[str, int]) -> None:
    """Print what runs where, and how to go on."""
    for name, process in processes.running.items():
        where = f"127.0.0.1:{ports[name]}"
        http = f", HTTP 127.0.0.1:{ports[f'{name} http']}" if f"{name} http" in ports else ""
        console.print(f"{name:15} {where}{http}  (process {process.pid}, log .segue/logs/{name}.log)", highlight=False)
    pids = " ".join(str(process.pid) for process in reversed(processes.running.values()))
    redis = f"SEGUE_REDIS=127.0.0.1:{ports['valkey']}"
    console.print(
        f"\nreports      .segue/reports/*.html"
        f"\nFeast's own  cd feature_repo && {redis} ../.venv/bin/feast ui"
        f'\nover HTTP    curl -s 127.0.0.1:{ports["propensity http"]}/v1/score_propensity -d \'{{"customer": "..."}}\' '
        f"-H 'content-type: application/json'"
        f"\nSegment SDKs http://127.0.0.1:{ports['collector http']}, write key {WRITE_KEY}"
        f"\nstop         kill {pids}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
