"""Serve what lies in .segue: the embedded online store, both services, collector and updater, until interrupted."""

import argparse
import signal
import sys
from pathlib import Path

from demo.__main__ import HOME, PORTS, start_services, start_stream, tell
from demo.processes import DemoError, Processes, free_port, start_valkey


def main() -> int:
    """Start everything, wait for Ctrl-C, stop everything; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.serve", description=__doc__)
    parser.add_argument("--outcome", default="purchase_7d", help="the propensity bundle to serve")
    options = parser.parse_args()
    processes = Processes(Path(HOME / "logs"))
    ports = {name: free_port(port) for name, port in PORTS.items()}
    try:
        start_valkey(processes, (HOME / "valkey").resolve(), ports["valkey"])
        start_services(processes, ports, options.outcome)
        start_stream(processes, ports)
        tell(processes, ports)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except DemoError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    finally:
        processes.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
