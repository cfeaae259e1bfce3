"""An experiment to which harm is done while it runs; workers everywhere import it.

The environment names a folder, FAULTS. There, `log` gets a line for every condition begun, and a
file `harm.<seed>` says what befalls a condition: `hold` (until the file is gone), `raise`, `die`
(by SIGKILL, as under a lack of memory) or `hang` (in C, with the interpreter's lock held).
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

SECTION, VERSION, TITLE = "faulty", 1, "An experiment that meets with faults"


@dataclass(frozen=True)
class Condition:
    seed: int
    width: int = 4


def run(condition: Condition, *, device: str) -> list[dict]:
    folder = Path(os.environ["FAULTS"])
    with (folder / "log").open("a") as log:
        log.write(f"{condition.seed} {os.getpid()}\n")
    harm = folder / f"harm.{condition.seed}"
    if harm.exists():
        _suffer(harm)
    generator = random.Random(condition.seed)
    return [{"neuron": neuron, "F": generator.random()} for neuron in range(condition.width)]


def _suffer(harm: Path) -> None:
    kind = harm.read_text()
    if kind == "raise":
        raise ZeroDivisionError(f"told to by {harm.name}")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":
        ctypes.PyDLL(None).sleep(600)
    while kind == "hold" and harm.exists():
        time.sleep(0.01)
