"""The commands: parse, call, print. Everything else in the project leaves printing to this file and to `progress`.

Heavy modules are imported where a command needs them, so that `genet --help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genet import __version__

if TYPE_CHECKING:
    from genet.choose.certificate import Selection
    from genet.choose.outcome import Outcomes
    from genet.job import Job
    from genet.progress import Progress
    from genet.spec.recipe import Budget, Recipe

Answer = dict[str, Any]

STEPS = {
    "profile": "measure the latency of every block on offer and find the staircases",
    "master": "train the MasterNet",
    "distill": "run the trials: fine-tunes of perturbed networks",
    "fit": "fit the pseudo-gradients to the trials",
    "train": "train the selected networks from scratch",
    "export": "export the trained networks",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it ends well, 2 for a fault, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    try:
        answer = arguments.command(arguments)
        if arguments.json:
            print(json.dumps(answer, allow_nan=False))
        return 0
    except KeyboardInterrupt:
        again = "the same command without --fresh" if getattr(arguments, "fresh", False) else "the same command"
        print(f"interrupted; {again} goes on where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as fault:
        from genet.errors import GenetError

        if arguments.debug or not isinstance(fault, GenetError):
            raise
        print(str(fault), file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="genet", description="Designs convolutional networks for one GPU and one latency budget."
    )
    parser.add_argument("--version", action="version", version=f"genet {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON line at the end")
    common.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], Answer], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common])
        sub.set_defaults(command=command)
        return sub

    whole = add("run", _run, "do the whole job, or go on with it")
    whole.add_argument("recipe", help="a recipe file, or the name of one that comes with genet")
    whole.add_argument("--fresh", action="store_true", help="start over in a new folder")
    whole.add_argument("--run", metavar="FOLDER", type=Path, help="the run folder (default: runs/NAME)")
    whole.add_argument("--data", metavar="FOLDER", help="where the images lie")
    whole.add_argument("--device", help="auto, cpu, cuda or cuda:N")

    check = add("check", _check, "check a recipe, a search space or a network, and count what it costs")
    check.add_argument("file", help="a YAML file, or the name of one that comes with genet")

    init = add("init", _init, "write a commented search space and recipe to start from")
    init.add_argument("file", type=Path, help="the recipe to write, such as my.yaml")

    for name, text in STEPS.items():
        step = add(name, _step, text)
        step.add_argument("run", type=Path, help="a run folder")
        step.set_defaults(step=name)

    report = add("report", _report, "write report.html about what there is so far")
    report.add_argument("run", type=Path, help="a run folder")

    select = add("select", _select, "select the best network for each budget")
    select.add_argument("run", type=Path, help="a run folder")
    select.add_argument(
        "--budget",
        action="append",
        metavar="B",
        help="ms per image or a multiple of the MasterNet's such as 0.5x; answered from what is on disk, nothing is written",
    )
    return parser


def _run(arguments: argparse.Namespace) -> Answer:
    from genet.runfolder import default_folder
    from genet.spec.reader import read_recipe

    recipe = _override(read_recipe(arguments.recipe), arguments)
    folder = arguments.run or default_folder(recipe.name, arguments.fresh)
    if arguments.run and arguments.fresh and folder.exists():
        from genet.errors import RunError

        raise RunError(f"{folder}: --fresh must name a new folder, and this one exists; give another --run")

    from genet import pipeline
    from genet.job import open_job

    progress = _progress()
    with open_job(folder, progress, recipe) as job:
        progress.say(f"{recipe.name} in {folder}")
        outcomes = pipeline.run(job)
        _print_outcomes(outcomes, job.folder.path)
        _print_unmet(pipeline.select(job))
    progress.say(f"report: {job.folder.report}")
    return {"run": str(folder), "report": str(job.folder.report), **outcomes.model_dump(mode="json")}


def _override(recipe: Recipe, arguments: argparse.Namespace) -> Recipe:
    """The recipe with what the command line says; checked again like the file."""
    from genet.errors import SpecError
    from genet.spec.recipe import Data, Measure

    data, measure = recipe.data, recipe.measure
    if arguments.data:
        data = Data.model_validate({**data.model_dump(), "root": str(Path(arguments.data).absolute())})
    if arguments.device:
        try:
            measure = Measure.model_validate({**measure.model_dump(), "device": arguments.device})
        except ValueError:
            raise SpecError([f"--device must be auto, cpu, cuda or cuda:N (got {arguments.device!r})"]) from None
    return recipe.model_copy(update={"data": data, "measure": measure})


def _check(arguments: argparse.Namespace) -> Answer:
    from genet.spec.cost import network_cost
    from genet.spec.network import Network
    from genet.spec.reader import read_any
    from genet.spec.recipe import Recipe

    record = read_any(arguments.file)
    answer: Answer = {"name": record.name}
    if isinstance(record, Network):
        network = record
    else:
        space = record.space if isinstance(record, Recipe) else record
        widths = space.widths_on_offer()
        network = space.masternet(record.search_resolution if isinstance(record, Recipe) else max(space.input.resolutions))
        answer |= {
            "networks": space.size(widths),
            "block_types": len(widths),
            "trials_at_most": space.perturb.samples * len(widths),
            "measurements_at_most": len({block for r in space.input.resolutions for block in space.blocks(widths, r)}),
        }
    cost = network_cost(network)
    size = network.input.resolution
    answer |= {
        "notation": str(network),
        "parameters": cost.parameters,
        "macs": cost.macs,
        "bytes": cost.bytes(),
        "size": size,
        "digest": network.digest,
    }
    for key, value in answer.items():
        print(f"{key.replace('_', ' '):<22} {value:,}" if isinstance(value, int) else f"{key:<22} {value}")
    return answer


def _init(arguments: argparse.Namespace) -> Answer:
    from genet.errors import RunError
    from genet.files import write_atomic
    from genet.spec.reader import shipped_files

    recipe: Path = arguments.file
    space = recipe.with_name(f"{recipe.stem}-space.yaml")
    for file in (recipe, space):
        if file.exists():
            raise RunError(f"{file}: must not exist yet, and does; name another file")
    for file, shipped in ((recipe, "recipe"), (space, "space")):
        text = shipped_files("templates")[shipped].read_text()
        write_atomic(file, text.replace("NAME", recipe.stem).encode())
    print(f"wrote {recipe} and {space}; then: genet check {recipe} && genet run {recipe} --data FOLDER")
    return {"recipe": str(recipe), "space": str(space)}


def _step(arguments: argparse.Namespace) -> Answer:
    from genet import pipeline
    from genet.job import open_job

    with open_job(arguments.run, _progress()) as job:
        match arguments.step:
            case "profile":
                stairs = pipeline.profile(job).staircases
                kept = [len(stair.kept) / len(stair.widths) for stair in stairs]
                return {"blocks": len(job.table), "staircases": len(stairs), "widths_kept": sum(kept) / max(1, len(kept))}
            case "master":
                return _print_master(job)
            case "distill":
                results = pipeline.distill(job)
                return {"trials": len(results), "failed": sum(result.accuracy is None for result in results)}
            case "fit":
                return _print_fit(job)
            case "train":
                outcomes = pipeline.train_selected(job)
                _print_outcomes(outcomes, job.folder.path)
                return outcomes.model_dump(mode="json")
            case _:
                return {"exports": [str(folder) for folder in pipeline.export_selected(job)]}


def _report(arguments: argparse.Namespace) -> Answer:
    from genet import pipeline
    from genet.job import read_job

    path = pipeline.write_report(read_job(arguments.run, _progress()))
    print(path)
    return {"report": str(path)}


def _print_master(job: Job) -> Answer:
    from genet import pipeline
    from genet.choose.outcome import percent

    trained = pipeline.train_master(job)
    print(f"accuracy on the images held out for the search: {percent(trained.nas_accuracy)}")
    return trained.model_dump(mode="json")


def _print_fit(job: Job) -> Answer:
    from genet import pipeline

    regression = pipeline.fit_trials(job)
    rows = [
        [
            str(g.index + 1),
            str(g.block_type),
            *(f"{100 * value:+.2f}" for value in (g.intercept, g.per_block, g.per_doubling)),
            str(g.trials),
        ]
        for g in regression.gradients
    ]
    _table(["super-block", "block type", "points at own size", "per block", "per doubled width", "trials"], rows)
    if regression.left_out_error is not None:
        print(f"error on trials left out one at a time: {100 * regression.left_out_error:.2f} points")
    return regression.model_dump(mode="json")


def _select(arguments: argparse.Namespace) -> Answer:
    from genet import pipeline
    from genet.job import open_job, read_job

    budgets = _budgets(arguments.budget)
    if budgets:
        selection = pipeline.answer(read_job(arguments.run, _progress()), budgets)
    else:
        with open_job(arguments.run, _progress()) as job:
            selection = pipeline.select(job)
    _print_selection(selection)
    _print_unmet(selection)
    return selection.model_dump(mode="json")


def _budgets(given: list[str] | None) -> tuple[Budget, ...]:
    """Budgets of the command line, each a number or a multiple."""
    from pydantic import ValidationError

    from genet.errors import SpecError
    from genet.spec.recipe import Select

    if not given:
        return ()
    try:
        return Select(budgets=tuple(map(_number, given))).budgets
    except ValidationError as fault:
        raise SpecError(f"--budget {error['msg']} (got {error['input']!r})" for error in fault.errors()) from None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _print_selection(selection: Selection) -> None:
    from genet.choose.outcome import percent

    rows = [
        [
            str(choice.budget),
            str(choice.resolution),
            choice.network,
            percent(choice.predicted_accuracy),
            f"{choice.budget_ms_per_image:.4f}",
            f"{choice.predicted_ms_per_image:.4f}",
            "n/a" if choice.measured_ms_per_image is None else f"{choice.measured_ms_per_image:.4f}",
            "n/a" if choice.within is None else "yes" if choice.within else "no",
        ]
        for choice in selection.choices
    ]
    _table(["budget", "pixels", "network", "predicted accuracy", "budget ms", "predicted ms", "measured ms", "within"], rows)


def _print_outcomes(outcomes: Outcomes, folder: Path) -> None:
    from genet.choose.outcome import percent
    from genet.spec.cost import network_cost
    from genet.spec.network import Network

    rows = [
        [
            str(row.budget),
            row.network,
            percent(row.predicted_accuracy),
            percent(row.test_accuracy),
            f"{row.predicted_ms_per_image:.4f}",
            f"{row.measured_ms_per_image:.4f}",
            f"{row.parameters:,}",
            f"{row.macs:,}",
            str(folder / row.export),
        ]
        for row in outcomes.outcomes
    ]
    masternet = outcomes.masternet
    measured, cost = f"{outcomes.masternet_ms_per_image:.4f}", network_cost(Network.parse(masternet.network))
    parameters, macs = f"{cost.parameters:,}", f"{cost.macs:,}"
    rows.append(["MasterNet", masternet.network, "", percent(masternet.test_accuracy), "", measured, parameters, macs, ""])
    accuracies, latencies = ["predicted accuracy", "test accuracy"], ["predicted ms/image", "measured ms/image"]
    _table(["budget", "network", *accuracies, *latencies, "parameters", "MACs", "export"], rows)


def _print_unmet(selection: Selection) -> None:
    """Say plainly which budgets no network meets, and the smallest that one does."""
    for budget in dict.fromkeys(choice.budget for choice in selection.choices):
        choices = [choice for choice in selection.choices if choice.budget == budget]
        measured = [choice.measured_ms_per_image for choice in choices if choice.measured_ms_per_image is not None]
        if measured and not any(choice.within for choice in choices):
            print(
                f"budget {budget} ({choices[0].budget_ms_per_image:.4g} ms/image) cannot be met by any network on offer: "
                f"the fastest one measured takes {min(measured):.4g} ms/image, the smallest budget that can be met"
            )


def _table(head: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:  # a notation is one line for programs, and one entry per line where people read
        table.add_row(*(text.replace(" | ", "\n") if terminal else text for text in row))
    Console(width=None if terminal else 1000).print(table)


def _progress() -> Progress:
    from rich.console import Console

    from genet.progress import LinePrinter, LiveBar

    console = Console()
    return LiveBar(console) if console.is_terminal else LinePrinter(console)


if __name__ == "__main__":
    sys.exit(main())
