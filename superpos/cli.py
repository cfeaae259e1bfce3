"""The command line: ``superpos list | run | sweep | fetch | book | claims | measure``."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from .measure_command import measure
from .settings import ENGINES, PROFILES

# Heavy modules (torch, pandas, ...) are imported inside the commands that need them.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="superpos")
def main() -> None:
    """Measure superposition in neural networks, and reproduce the paper behind the measure."""


@main.command("list")
def list_sections() -> None:
    """List the sections with their notebooks and profiles."""
    from .settings import profiles_of, project_root

    for section in _sections():
        notebook = _notebook(section)
        path = notebook.relative_to(project_root()) if notebook.is_file() else "no notebook"
        profiles = ", ".join(profiles_of(section)) or "no profiles"
        click.echo(f"{section:20s} {_experiment(section).TITLE}")
        click.echo(f"{'':20s} {path}; {profiles}")


def _of_section(profile: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command its SECTION, its parameters, and its profile with this default."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option(
                "--profile", default=profile, type=click.Choice(PROFILES), show_default=True
            ),
            click.option(
                "-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="Parameter."
            ),
            click.argument("section"),
        ):
            command = option(command)
        return command

    return decorated


def _computed_somewhere(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where and how conditions are computed."""
    for option in (
        click.option("--time-limit", metavar="SECONDS", help="Stop a condition that takes longer."),
        click.option("--address", help="Of a running Ray or Dask cluster."),
        click.option("--gpus", metavar="SHARE", help="GPUs per condition, such as 0.25."),
        click.option("--cpus", metavar="COUNT", help="Cores per condition."),
        click.option("--workers", metavar="COUNT", help="Conditions computed at a time."),
        click.option("--engine", help=f"How conditions are run: {', '.join(ENGINES)}."),
    ):
        command = option(command)
    return command


@main.command()
@_of_section("quick")
@_computed_somewhere
@click.option("--output", type=click.Path(path_type=Path), help="The executed notebook.")
def run(
    section: str,
    parameters: tuple[tuple[str, str], ...],
    profile: str,
    output: Path | None,
    **computing: str | None,
) -> None:
    """Run the notebook of SECTION with a profile's parameters and your own."""
    from .settings import project_root

    settings = _settings(_experiment(section), profile, [*parameters, *_given(computing)])
    notebook = _notebook(section)
    if not notebook.is_file():
        raise click.ClickException(f"{notebook} is missing; run this in the project's folder")

    from .book import NotebookFailed, execute

    root = project_root()
    output = (output or root / "book" / "executed" / notebook.name).absolute()
    try:
        execute(notebook, output, asdict(settings), root=root, progress=True)
    except NotebookFailed as error:
        raise click.ClickException(str(error)) from None
    click.echo(output)


@main.command()
@_of_section("quick")
@_computed_somewhere
def sweep(
    section: str, parameters: tuple[tuple[str, str], ...], profile: str, **computing: str | None
) -> None:
    """Compute the records of SECTION, without its notebook.

    Several of these may run at once, on one machine or on many that share SUPERPOS_RESULTS: each
    condition is computed by one of them. One that was killed goes on where it stopped.
    """
    experiment = _experiment(section)
    settings = _settings(experiment, profile, [*parameters, *_given(computing)])

    from .chapter import computed
    from .sweep import SweepFailed

    try:
        records = computed(experiment, settings)
    except ValueError as error:  # SettingsError among them
        raise click.UsageError(str(error)) from None
    except SweepFailed as failed:
        raise click.ClickException(str(failed)) from None
    click.echo(f"{section}: {len(records)} records")


def _given(computing: dict[str, str | None]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in computing.items() if value is not None]


@main.command()
@_of_section("paper")
def fetch(section: str, parameters: tuple[tuple[str, str], ...], profile: str) -> None:
    """Fetch what a run of SECTION needs from the network, for a machine that has none.

    Models go where HF_HOME says, everything else where SUPERPOS_DATA says; copy both.
    """
    experiment = _experiment(section)
    if not hasattr(experiment, "fetch"):
        raise click.ClickException(f"section '{section}' fetches nothing by this command")
    settings = _settings(experiment, profile, parameters)
    try:
        for line in experiment.fetch(settings):
            click.echo(line)
    except (OSError, ValueError) as error:  # DataNotFound and HubUnreachable among them
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--profile", default="quick", type=click.Choice(PROFILES), show_default=True)
@click.option("--workers", default=2, type=click.IntRange(min=1), show_default=True)
@click.option("--no-build", is_flag=True, help="Execute the notebooks without building the pages.")
@click.option("--serve", is_flag=True, help="Serve the pages to this machine; build if not there.")
@click.option(
    "--port", default=8000, type=click.IntRange(0, 65535), show_default=True, help="For --serve."
)
@click.option("--pdf", is_flag=True, help="Print the pages into one PDF; build if not there.")
def book(profile: str, workers: int, no_build: bool, serve: bool, port: int, pdf: bool) -> None:
    """Execute all notebooks and build the book; or read the one that is built."""
    from .pages import pages_folder
    from .settings import project_root

    root = project_root()
    if no_build and (serve or pdf):
        raise click.UsageError("--no-build makes no pages that --serve or --pdf could use")
    there = (pages_folder(root) / "index.html").is_file()
    given = click.get_current_context().get_parameter_source("profile")
    if (serve or pdf) and there and given is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--serve and --pdf take the book as it is built; build it first")
    if not (serve or pdf) or not there:
        _built(profile, workers, no_build)
    if pdf:
        _printed(root)
    if serve:
        _served(pages_folder(root), port)


def _built(profile: str, workers: int, no_build: bool) -> None:
    from .book import build
    from .settings import SettingsError

    try:
        status = build(profile, workers=workers, build=not no_build)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    if status:
        sys.exit(status)


def _printed(root: Path) -> None:
    from .pages import pages_folder

    try:
        from .pdf import NoBrowser, chapters, print_book
    except ImportError as error:
        raise click.ClickException(f"{error}; run pip install -e '.[book]'") from None
    output = root / "_build" / "superpos.pdf"
    try:
        count = print_book(pages_folder(root), chapters(root / "_toc.yml"), output)
    except (NoBrowser, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{output}: {count} pages")


def _served(folder: Path, port: int) -> None:
    from .pages import serve

    try:
        server = serve(folder, port)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        message = f"port {port} cannot be used ({error.strerror}); choose another with --port"
        raise click.ClickException(message) from None
    click.echo(f"http://127.0.0.1:{server.server_port}/ (Ctrl+C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("")
    finally:
        server.server_close()


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print all claims and values as JSON.")
def claims(as_json: bool) -> None:
    """Show which of the paper's claims the results here reproduce."""
    from .ledger import ClaimError
    from .scorecard import scorecard
    from .store import result_roots

    try:
        card = scorecard(result_roots())
    except ClaimError as error:
        raise click.ClickException(str(error)) from None
    click.echo(card.to_json() if as_json else str(card))


def _sections() -> list[str]:
    from . import experiments

    names = (module.name for module in pkgutil.iter_modules(experiments.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def _experiment(section: str) -> ModuleType:
    """Import a section's experiment, or refuse a wrong name with the right ones."""
    names = _sections()
    if section not in names:
        close = difflib.get_close_matches(section, names, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        message = f"unknown section '{section}'; allowed: {', '.join(names)}{hint}"
        raise click.BadParameter(message, param_hint="SECTION")
    return importlib.import_module(f"superpos.experiments.{section}")


def _settings(experiment: ModuleType, profile: str, pairs: Iterable[tuple[str, str]]) -> Any:
    """A profile's settings with some changed, or a refusal that says what is allowed."""
    from .engines import check
    from .settings import SettingsError, from_strings, load_profile

    if "profile" in dict(pairs):
        raise click.UsageError("choose the profile by --profile, so that its parameters are read")
    try:
        base = {**load_profile(experiment.SECTION, profile), "profile": profile}
        settings = from_strings(experiment.Settings, pairs, base)
        check(settings)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    return settings


def _notebook(section: str) -> Path:
    from .settings import project_root

    return project_root() / "notebooks" / f"{section}.ipynb"


main.add_command(measure)
