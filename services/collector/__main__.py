"""Run the collector, or make the keys it needs."""

import argparse
import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from segue.errors import SegueError
from segue.rpc.settings import describe, read
from services.collector import keys
from services.collector.settings import CollectorSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; returns the exit status, 1 where the settings do not allow a start."""
    parser = argparse.ArgumentParser(
        prog="python -m services.collector",
        description="Take events over HTTP (Segment's tracking API) and gRPC. Settings are environment variables:",
        epilog=describe(CollectorSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--new-key", type=Path, metavar="FILE", help="put a new pseudonym key first in FILE, and end")
    parser.add_argument(
        "--new-write-key", type=Path, metavar="FILE", help="put a new write key first in FILE, tell it, and end"
    )
    options = parser.parse_args(arguments)
    if options.new_key:
        keys.new(options.new_key, f"{secrets.token_hex(4)}:{secrets.token_hex(keys.KEY_BYTES)}")
        return 0
    if options.new_write_key:
        key = secrets.token_urlsafe(24)
        keys.new(options.new_write_key, f"{secrets.token_hex(4)}:{keys.HASHED}{keys.digest(key).hex()}")
        print(key)
        return 0
    return _serve()


def _serve() -> int:
    import uvloop

    from services.collector.server import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        uvloop.run(serve(read(CollectorSettings, os.environ)))
    except (SegueError, OSError, RuntimeError) as error:
        print(f"services.collector: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
