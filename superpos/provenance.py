"""How a result was computed: versions, device, threads, time and commit."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def provenance(*, device: str = "cpu", seconds: float = 0.0) -> dict[str, Any]:
    """Say how a result was computed.

    Args:
        device: Torch device that did the work.
        seconds: Wall time of the work in seconds.

    Returns:
        Versions of superpos, torch, numpy and Python, device name, CPU threads, seconds,
        UTC date, and the git commit of the code (with ``-dirty`` if it was changed since; None
        outside git).
    """
    import torch

    return {
        "superpos": _version("superpos"),
        "torch": torch.__version__,
        "numpy": _version("numpy"),
        "python": platform.python_version(),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 3),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _git_commit(),
    }


@functools.cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _device_name(device: str) -> str:
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device} ({_processor_name()})"


@functools.cache
def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@functools.cache
def _git_commit() -> str | None:
    """Return the commit of the package's own folder, or None if git does not track it."""
    folder = Path(__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(folder, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
