"""The parser of all commands, in the groups in which `genet --help` lists them."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from genet import __version__
from genet.cli.parser_design import add_design_commands
from genet.cli.parser_measure import add_measuring_commands
from genet.cli.parser_networks import add_network_commands
from genet.cli.parser_studies import add_studies

WIDTH = 80
PURPOSE = "Designs convolutional networks for your device and your latency budget."
EXITS = (
    "exit codes: 0 done; 2 refused or failed, and the reason is printed; 3 no budget is met: the smallest possible one is "
    "printed, or that noise prevented a certificate; 130 interrupted, 143 terminated: the same command resumes the work"
)
GROUPS = {
    "design a network": add_design_commands,
    "measure": add_measuring_commands,
    "improve a network you have": add_network_commands,
    "studies": add_studies,
}
RENAMED = {
    "--f": "--images-per-fold",
    "--fresh": "--new-run",
    "--more": "--extra",
    "--next": "--suggest",
    "--picture": "--plot",
    "--reduce": "--target-ratio",
    "--tau": "--param-tolerance",
}


class Parser(argparse.ArgumentParser):
    """A parser whose errors give the new name of a renamed option."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and an error message."""
        words = re.split(r"[ =]", message)
        renamed = [f"{old} is called {new} now" for old, new in RENAMED.items() if old in words]
        super().error("; ".join([message, *renamed]))


class CommandsParser(Parser):
    """The parser that picks the command; a command's name may be two words."""

    commands: Mapping[str, argparse.ArgumentParser]
    command = ""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2, an error message, and the nearest commands or options to those misspelt."""
        from genet.config.faults import did_you_mean  # loads pydantic

        if unknown := re.search(r"invalid choice: '(.*?)'", message):
            super().error(
                f"{unknown[1]} is not a command{did_you_mean(unknown[1], [*self.commands]) or '; genet --help lists them'}"
            )
        known = re.findall(r"--[\w-]+", self.commands[self.command].format_usage()) if self.command in self.commands else []
        misspelt = [word for word in re.split(r"[ =]", message) if word.startswith("--") and word not in RENAMED]
        super().error(message + "".join(did_you_mean(word, known) for word in misspelt))

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse a command line whose first word or words name a command."""
        words = [*(args or ())]
        if words[:2] == ["latency", "diff"]:
            words[:2] = [" ".join(words[:2])]
        self.command = words[0] if words else ""
        return super().parse_known_args(words, namespace)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each is carried out by `run` in the module of its name."""
    found = CommandsParser(
        prog="genet",
        usage="genet [-h] [--version] COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=textwrap.fill(EXITS, WIDTH - 2),
    )
    found.add_argument("--version", action="version", version=f"genet {__version__}")
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON line at the end")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = found.add_subparsers(metavar="COMMAND", required=True, help=argparse.SUPPRESS, prog="genet", parser_class=Parser)
    found.commands = commands.choices
    listed = [PURPOSE]

    def add(name: str, text: str) -> argparse.ArgumentParser:
        listed.append(textwrap.fill(f"    {name:<13} {text}", WIDTH - 2, subsequent_indent=" " * 18))
        sub = commands.add_parser(name, description=f"{text[0].upper()}{text[1:]}.", parents=[common], allow_abbrev=False)
        sub.set_defaults(command=name)
        return sub

    for title, add_commands in GROUPS.items():
        listed += ["", f"{title}:"]
        add_commands(add)
    found.description = "\n".join(listed)
    return found
