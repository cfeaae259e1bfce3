"""Fetch the scripts and fonts that the pages need, so that these load nothing from elsewhere.

Run by `make vendor`, with npm. The versions are those below; SHA256SUMS says what was fetched, and
is read by the tests. Licences are in LICENSES.md.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent / "_static" / "vendor"
ICONS = "1551f4f60c37af51121f.woff2"  # Font Awesome 4.7, where embed-amd.js looks for it
PACKAGES = {
    "requirejs@2.3.8": {"require.js": "require.js"},
    "@jupyter-widgets/html-manager@1.0.15": {
        "dist/embed-amd.js": "embed-amd.js",
        "dist/embed.js.LICENSE.txt": "embed-amd.LICENSE.txt",
        f"dist/{ICONS}": f"@jupyter-widgets/html-manager/dist/{ICONS}",
    },
    "mathjax@3.2.2": {
        "es5/tex-mml-chtml.js": "mathjax/tex-mml-chtml.js",
        "es5/output/chtml/fonts/woff-v2": "mathjax/output/chtml/fonts/woff-v2",
        "LICENSE": "mathjax/LICENSE",
    },
}
"""Files and folders taken from each package, and where they go."""
SUMS = "SHA256SUMS"


def sums(folder: Path) -> dict[str, str]:
    """Name and SHA-256 of every fetched file in a folder."""
    fetched = {name for files in PACKAGES.values() for name in files.values()}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(path.is_relative_to(folder / name) for name in fetched)
    }


def fetch(package: str, files: dict[str, str], folder: Path) -> None:
    """Put files of one package into a folder."""
    with tempfile.TemporaryDirectory() as work:
        command = ["npm", "pack", "--silent", package]
        subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(work).glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(work, filter="data")
        for source, target in files.items():
            path, there = Path(work) / "package" / source, folder / target
            there.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.rmtree(there, ignore_errors=True)
                shutil.copytree(path, there)
            else:
                shutil.copyfile(path, there)


def main() -> None:
    """Fetch everything and write the checksums."""
    if shutil.which("npm") is None:
        sys.exit("npm was not found: install Node.js, which it comes with")
    for package, files in PACKAGES.items():
        print(package)
        fetch(package, files, FOLDER)
    known = (FOLDER / SUMS).read_text(encoding="utf-8") if (FOLDER / SUMS).exists() else ""
    text = "".join(f"{digest}  {name}\n" for name, digest in sums(FOLDER).items())
    (FOLDER / SUMS).write_text(text, encoding="utf-8")
    print("the same files as before" if text == known else f"files differ: see git diff of {SUMS}")


if __name__ == "__main__":
    main()
