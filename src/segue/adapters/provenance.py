"""Where a bundle comes from."""

import shutil
import subprocess
from pathlib import Path


def git_sha(directory: Path) -> str:
    """The commit checked out in `directory`; empty where there is none to be found."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "rev-parse", "HEAD"]
    answer = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)  # noqa: S603
    return answer.stdout.strip() if answer.returncode == 0 else ""
