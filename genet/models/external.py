"""Networks that other code builds: timm's, and those of a user's own functions, with layers at other widths."""

from __future__ import annotations

import sys
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from genet.arch.external import ExternalModel, ModelSpec
from genet.errors import GenetError, SpecError, first_line
from genet.models.build import GENet, build
from genet.models.fingerprint import fingerprint, same_fingerprint
from genet.models.hub import fetching, pretrained_model
from genet.models.plain import with_plain_weights


def build_structure(structure: ModelSpec, seed: int = 0) -> nn.Module:
    """Return any network with fresh weights that depend on the seed alone; `structure_of` returns the structure later."""
    if not isinstance(structure, ExternalModel):
        return build(structure, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _built(structure)
        for name in structure.removed or ():
            _remove(module, name, structure)
        for name, (written, read) in structure.layers.items():
            _replace(module, name, written, read, structure)
    return mark_structure(module, structure)


def mark_structure(module: nn.Module, structure: ModelSpec) -> nn.Module:
    """Return the module, marked with the structure that it was built from."""
    module.genet_structure = structure  # type: ignore[assignment]
    return module


def structure_of(module: nn.Module) -> ModelSpec:
    """Return the structure that a network was built from."""
    return module.network if isinstance(module, GENet) else cast("ModelSpec", module.genet_structure)


def pretrained(structure: ExternalModel) -> tuple[nn.Module, str | None]:
    """Return timm's model with trained weights, or why it has none; a head for other classes is fresh."""
    name, input_ = structure.source.removeprefix("timm:"), structure.input
    try:
        return mark_structure(pretrained_model(name, num_classes=input_.classes, in_chans=input_.channels), structure), None
    except GenetError as fault:
        return build_structure(structure), str(fault).removeprefix(f"{structure.source}: ")


def import_attribute(what: str) -> Any:
    """Return MODULE:ATTRIBUTE, from an installed package or from the working folder; GenetError if it cannot be imported."""
    module, _, name = what.partition(":")
    if module.endswith(".py"):
        raise GenetError(f"{what}: got a file, expected MODULE:FUNCTION; write {module.removesuffix('.py')}:{name}")
    path = sys.path.copy()
    sys.path.insert(0, str(Path.cwd()))
    try:
        with fetching(what):
            return getattr(import_module(module), name)
    except GenetError:
        raise
    except ModuleNotFoundError as fault:
        if not (fault.name and f"{module}.".startswith(f"{fault.name}.")):  # except one that the user's own code imports
            raise GenetError(f"importing {what} as MODULE:ATTRIBUTE failed ({first_line(fault)})") from None
        raise GenetError(
            f"importing {what} as MODULE:ATTRIBUTE failed: got no module {fault.name} in {Path.cwd()} or on PYTHONPATH; go "
            f"to the folder of {fault.name.partition('.')[0]}.py, or add it to PYTHONPATH"
        ) from None
    except Exception as fault:  # any error of a user's module
        raise GenetError(f"importing {what} as MODULE:ATTRIBUTE failed ({first_line(fault)})") from None
    finally:
        sys.path[:] = path


def _built(structure: ExternalModel) -> nn.Module:
    source, input_ = structure.source, structure.input
    if source.startswith("timm:"):
        import timm

        name = source.removeprefix("timm:")
        try:
            found = timm.create_model(name, pretrained=False, num_classes=input_.classes, in_chans=input_.channels)
        except Exception as fault:  # any error of timm
            raise GenetError(f"building {source} for {input_.classes} classes failed ({first_line(fault)})") from None
        return cast("nn.Module", found)
    with torch.device("cpu"):  # timing builds networks on the meta device; a user's function may read the values of its tensors
        module = _called(source, input_.image)
        if structure.computes:
            _check_computed(module, source, structure.computes)
        return module


_checked = dict[tuple[str, str], Any]()  # functions already found unchanged in this process


def _check_computed(module: nn.Module, source: str, noted: str) -> None:
    """Raise GenetError if a user's function no longer computes what was noted when it was imported."""
    function = import_attribute(source)
    if _checked.get((source, noted)) is function:
        return
    resolution, channels = map(int, noted.partition(":")[0].split("x"))
    try:
        same, why = same_fingerprint(fingerprint(module, resolution, channels), noted), ""
    except Exception as fault:  # whatever a user's network raises
        same, why = False, f" ({first_line(fault)})"
    if not same:
        raise GenetError(
            f"{source} no longer computes what it did when this network was imported{why}; restore it, or import it again: "
            f"genet import {source} --into FOLDER"
        )
    _checked[source, noted] = function


def with_fingerprint(structure: ExternalModel) -> ExternalModel:
    """Return a user's network with a note of its function's answer, which is checked whenever the network is built.

    There is no note if the answer changes at every call, or fails with other weights than the function's.
    """
    modules, input_ = [build_structure(structure, seed) for seed in (0, 1)], structure.input
    try:
        once, again = (fingerprint(module, input_.resolution, input_.channels) for module in modules)
    except Exception:  # whatever a user's network raises
        return structure
    return structure.model_copy(update={"computes": once}) if same_fingerprint(once, again) else structure


def check_unchanged(structure: ModelSpec) -> None:
    """Raise GenetError if other code builds the network, and no longer computes what it did when it was imported."""
    if isinstance(structure, ExternalModel) and structure.computes:
        build_structure(structure)


def _called(source: str, image: tuple[int, int, int]) -> nn.Module:
    """Return the network that a user's function builds, made plain."""
    function = import_attribute(source)
    if isinstance(function, nn.Module):
        name = source.rpartition(":")[2]
        raise GenetError(
            f"{source}: got a network, expected a function or class that builds one; write def build(): return {name}"
        )
    if not callable(function):
        raise GenetError(f"{source}: got a {type(function).__name__}, expected a function or class that builds a network")
    try:
        with fetching(source):
            found = function()
    except GenetError:
        raise
    except Exception as fault:  # any error of a user's function
        raise GenetError(f"{source}() failed to build a network ({first_line(fault)})") from None
    if not isinstance(found, nn.Module):
        raise GenetError(f"{source}() returned a {type(found).__name__}, expected a torch.nn.Module")
    if _lazy(found):
        count_logits(found.cpu().float(), image, source)
        if unused := _lazy(found):
            raise GenetError(
                f"{source}() returned a network in which {unused} has no shape yet, expected one that runs all its lazy layers"
            )
    return with_plain_weights(found, source)


def _lazy(module: nn.Module) -> str | None:
    """Return the first parameter or buffer whose shape is not known yet."""
    return next((name for name, each in chain(module.named_parameters(), module.named_buffers()) if is_lazy(each)), None)


def count_logits(module: nn.Module, image: tuple[int, int, int], name: str) -> int:
    """Return the number of a network's logits for an image; GenetError names the innermost module that fails."""
    example, inside = torch.zeros(1, *image), [""]
    handles = []

    def leave(*_: object) -> None:
        inside.pop()

    for place, part in module.named_modules():
        handles.append(part.register_forward_pre_hook(lambda *_, place=place: inside.append(place)))
        handles.append(part.register_forward_hook(leave))
    try:
        with torch.no_grad():
            answer = module.eval()(example)
    except Exception as fault:  # whatever a user's network raises
        where = f": its module {inside[-1]}" if inside[-1] else ""
        size, reason = " x ".join(map(str, example.shape)), first_line(fault)
        remedy = "give the channels and the size that it reads"
        if any(word in reason.lower() for word in ("cuda", "nvidia", "same device")):
            remedy = "remove .cuda() and .to() from its code, as genet moves the whole network to a device"
        raise GenetError(f"{name}{where} failed on images of {size} ({reason}); {remedy}") from None
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(answer, torch.Tensor):
        raise GenetError(f"{name} returned a {type(answer).__name__}, expected one tensor of logits; wrap it in a module")
    if answer.dim() != 2 or answer.shape[1] < 2:
        raise GenetError(f"{name} returned a tensor of {tuple(answer.shape)}, expected at least two logits for each image")
    return answer.shape[1]


def channels(layer: nn.Module) -> tuple[int, int] | None:
    """Return the channels that a layer writes and reads; None for a layer without widths to change."""
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels, layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    return (layer.num_features, layer.num_features) if isinstance(layer, _BatchNorm) else None


def _remove(module: nn.Module, name: str, structure: ExternalModel) -> None:
    """Have a residual block pass on what it reads."""
    try:
        module.get_submodule(name)
    except AttributeError:
        raise SpecError([f"removed: got {name}, expected blocks of {structure.source}"]) from None
    module.set_submodule(name, nn.Identity())


def _replace(module: nn.Module, name: str, written: int, read: int, structure: ExternalModel) -> None:
    """Give a layer fresh weights of other widths, in place, as it may have several names."""
    try:
        layer = module.get_submodule(name)
    except AttributeError:
        layer = nn.Identity()
    if isinstance(layer, nn.Conv2d):
        together = layer.in_channels // layer.groups  # a group of channels is kept or lost as a whole
        layer.out_channels, layer.in_channels, layer.groups = written, read, read // together if layer.groups > 1 else 1
        _renew(layer, "weight", (written, read // layer.groups, *layer.kernel_size))
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = written, read
        _renew(layer, "weight", (written, read))
    elif isinstance(layer, _BatchNorm):
        layer.num_features = written
        for tensor in ("weight", "running_mean", "running_var"):
            _renew(layer, tensor, (written,))
    else:
        raise SpecError([f"layers.{name}: must be a convolution, a linear layer or a normalisation of {structure.source}"])
    _renew(layer, "bias", (written,))
    layer.reset_parameters()


def _renew(layer: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Give a layer an empty tensor of another shape; one that is frozen stays so."""
    before = getattr(layer, name)
    if before is not None:
        after = before.new_empty(shape)
        setattr(layer, name, nn.Parameter(after, before.requires_grad) if isinstance(before, nn.Parameter) else after)
