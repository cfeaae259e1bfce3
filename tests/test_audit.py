"""`make audit` asks a service of known vulnerabilities, and does not pass where none answers."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = """#!/bin/sh
# Answers as uv and what it runs do; the last argument is a list of packages.
for list; do :; done
case "$*" in
*"pip freeze"*) printf 'torch==2.15.0+cu132\\nfilelock==3.1\\n'; exit ;;
esac
if [ "$ANSWERS" = nothing ]; then echo "No known vulnerabilities found"; exit "$STATUS"; fi
if grep -q 'pip==20.0' "$list"; then echo "Found 5 known vulnerabilities in 1 package"; exit 1; fi
cat "$list"
if [ "$ANSWERS" = bad ]; then echo "Found 1 known vulnerability in 1 package"; exit 1; fi
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("answers", "status", "code"),
    [("nothing", 0, 2), ("nothing", 1, 2), ("good", 0, 0), ("bad", 0, 2)],
)
def test_an_audit_passes_only_if_every_package_was_looked_up(tmp_path, answers, status, code):
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "installed").touch()
    done = subprocess.run(
        ["make", "audit", f"BIN={tmp_path}", f"STAMP={tmp_path / 'installed'}"],
        cwd=ROOT, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "ANSWERS": answers, "STATUS": str(status)},
    )  # fmt: skip
    assert done.returncode == code
    if answers == "nothing":
        assert done.stdout == ""
        assert done.stderr.splitlines()[0].startswith("no service of known vulnerabilities can be")
    else:
        assert done.stdout.splitlines()[:2] == ["torch==2.15.0", "filelock==3.1"]
