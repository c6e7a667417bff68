"""Generate the gRPC stubs of `protos/` into `src/segue`: at install, or with `python hatch_build.py`."""

import argparse
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
PACKAGE = Path("segue/v1")


def generate(out: Path = ROOT / "src") -> list[Path]:
    """Run protoc over every proto; returns the generated files. Raises RuntimeError when protoc refuses."""
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos" / PACKAGE).glob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={ROOT / 'protos'}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        *sources,
    ]
    (out / PACKAGE).mkdir(parents=True, exist_ok=True)
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc refused the files in protos/; its reasons stand above")
    (out / PACKAGE / "__init__.py").write_text('"""Generated from protos/segue/v1: edit those."""\n')
    return sorted((out / PACKAGE).iterdir())


class CustomBuildHook(BuildHookInterface):
    """Makes `pip install` generate the stubs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate before hatchling collects files."""
        generate()


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    for path in generate():
        print(path.relative_to(ROOT), file=sys.stdout)
