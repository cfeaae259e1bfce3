"""The command ``superpos measure``: a network and a file of inputs, measured."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

# Heavy modules (torch, NumPy) are imported inside, where they are needed.


@click.command()
@click.argument("model")
@click.argument("data", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--site", "sites", multiple=True, help="Module to read; several may be given.")
@click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seeds", default=3, type=click.IntRange(1, 10_000), show_default=True)
@click.option("--l1", type=click.FloatRange(min=0), help="Weight of the l1 penalty.")
@click.option(
    "--expansion", type=click.FloatRange(min=0, min_open=True), help="Dictionary/neurons."
)
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def measure(
    model: str,
    data: Path,
    sites: tuple[str, ...],
    weights: Path | None,
    seeds: int,
    l1: float | None,
    expansion: float | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure the superposition of MODEL on DATA.

    MODEL is 'module:callable', where the callable returns a torch module; --weights loads a
    safetensors file into it. DATA is a .npy file of inputs, samples first.
    """
    network, inputs = _model(model, weights), _inputs(data)

    from .activations import UnknownSite
    from .measurement import measure as measure_model
    from .sae import SAEConfig

    chosen = {"l1": l1, "expansion": expansion}
    try:
        config = SAEConfig(**{name: value for name, value in chosen.items() if value is not None})
        report = measure_model(
            network, inputs, sites=list(sites) or None, sae=config, seeds=seeds, device=device
        )
    except (ValueError, RuntimeError, TypeError, MemoryError, UnknownSite) as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from None
    if as_json:
        click.echo(report.to_frame().reset_index().to_json(orient="records", indent=1))
    else:
        click.echo(str(report))


def _model(path: str, weights: Path | None) -> torch.nn.Module:
    """Call the named factory and load the weights, if any."""
    import torch

    module, _, name = path.partition(":")
    if not module or not name:
        raise click.BadParameter(f"'{path}' must be 'module:callable'", param_hint="MODEL")
    sys.path.insert(0, str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise click.BadParameter(str(error), param_hint="MODEL") from None
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        message = f"importing '{module}' raised {type(error).__name__}: {error}"
        raise click.BadParameter(message, param_hint="MODEL") from None
    try:
        model = factory if isinstance(factory, torch.nn.Module) else _called(factory, path)
    except click.BadParameter:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's function raises
        message = f"'{path}' raised {type(error).__name__}: {error}"
        raise click.BadParameter(message, param_hint="MODEL") from None
    if not isinstance(model, torch.nn.Module):
        kind = type(model).__name__
        raise click.BadParameter(f"'{path}' returned a {kind}, no module", param_hint="MODEL")
    if weights is not None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file, load_model

        try:
            own = {name: value.is_complex() for name, value in model.state_dict().items()}
            for name, value in load_file(weights).items():
                if value.is_complex() and not own.get(name, True):
                    raise ValueError(f"{name} holds complex numbers, the network real ones")
            load_model(model, weights)
        except (SafetensorError, RuntimeError, ValueError) as error:
            message = f"{weights} does not fit '{path}': {' '.join(str(error).split())}"
            raise click.BadParameter(message, param_hint="--weights") from None
    return model


def _called(factory: Any, path: str) -> Any:
    """What a callable without arguments returns."""
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        message = f"'{path}' must be callable without arguments: {error}"
        raise click.BadParameter(message, param_hint="MODEL") from None
    except ValueError:  # built in, without a signature
        pass
    return factory()


def _inputs(path: Path) -> torch.Tensor:
    """Read an array of inputs; nothing is unpickled."""
    import numpy as np

    from .given import numbers

    try:
        with path.open("rb") as file:
            inputs = numbers("values", np.lib.format.read_array(file, allow_pickle=False))
    except Exception as error:  # whatever a file that is none makes the reader raise
        message = f"{path} must be a .npy file with one array of numbers: {error}"
        raise click.BadParameter(message, param_hint="DATA") from None
    return inputs.float() if inputs.is_floating_point() else inputs
