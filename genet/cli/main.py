"""Runs one command; its module is imported when it is called, so that `genet --help` answers at once."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from genet.cli.parser import parser
from genet.cli.streams import outlast_streams, output_fault
from genet.errors import GenetError
from genet.names import check_utf8, visible
from genet.signals import Terminated, terminate

NONE_MET = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see `genet --help`."""
    outlast_streams()
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
    except SystemExit as answered:  # raised by argparse for --help or --version
        if answered.code:
            raise
        code = 0
    if code in (0, NONE_MET) and (fault := output_fault()):
        rule = "room for the output; the work is done, so give the same command again with another output"
        print(f"standard output: got {fault!r}, expected {rule}", file=sys.stderr)
        return 2
    return code


def _run(argv: Sequence[str]) -> int:
    arguments = parser().parse_args(argv or ["--help"])
    signal.signal(signal.SIGTERM, terminate)
    try:
        for text in argv:
            check_utf8(text)
        module = {"import": "import_"}.get(arguments.command, arguments.command.replace(" ", "_"))  # a reserved word of Python
        answer = import_module(f"genet.cli.{module}").run(arguments)
        shortfalls = answer.get("shortfalls", ())
        sys.stdout.flush()  # these lines come last, even if both streams are one file
        for line in shortfalls:
            print(line, file=sys.stderr)
        if arguments.json:
            print(json.dumps(answer, allow_nan=False))
        return NONE_MET if answer.get("met") is False else 0
    except KeyboardInterrupt:
        again = "the same command without --new-run" if getattr(arguments, "new_run", False) else "the same command"
        print(f"interrupted; {again} resumes the work", file=sys.stderr)
        return 130
    except Terminated:
        print("terminated; the same command resumes the work", file=sys.stderr)
        return 128 + signal.SIGTERM
    except (GenetError, OSError) as fault:
        if arguments.debug or (isinstance(fault, OSError) and fault.filename is None):
            _uncover(fault)
            raise
        lines = fault.args
        if isinstance(fault, OSError):
            lines = (f"{fault.filename}: cannot be used ({fault.strerror}); name another, or change its permissions",)
        for line in lines:
            print(visible(str(line)), file=sys.stderr)
        if arguments.json:
            print(json.dumps({"error": "\n".join(map(str, lines))}))
        return 2


def _uncover(fault: BaseException) -> None:
    """Let the traceback show the cause of a fault whose message replaced it."""
    below: BaseException | None = fault
    while below:
        below.__suppress_context__ = False
        below = below.__cause__ or below.__context__


if __name__ == "__main__":
    sys.exit(main())
