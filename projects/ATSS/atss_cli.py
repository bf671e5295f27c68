"""The command `atss`. Its help takes no time: the package, and with it torch, is imported for the command that runs."""

import difflib
import gc
import importlib
import sys
from importlib import metadata

# Name of a command -> its module in atss.commands, arguments that it begins with, and what it does.
COMMANDS = {
    "train": ("train", [], "train a detector, and evaluate it"),
    "eval": ("train", ["--eval-only"], "evaluate a checkpoint"),
    "predict": ("predict", [], "detect objects in images, videos or a camera's images; draw or list them"),
    "check": ("check", [], "check a dataset before training"),
    "tile": ("tile", [], "cut a dataset's images into tiles, for small objects in large images"),
    "report": ("report", [], "write the report of a run"),
    "export": ("export", [], "write a detector to a file that runs without this project"),
    "convert": ("convert", [], "make a checkpoint of another codebase one of this project"),
    "study": ("study", [], "run the tables of the paper's experiments"),
    "assignments": ("assignments", [], "draw the positives of label assignment rules"),
}


def usage() -> str:
    lines = [f"  {name:12} {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: atss COMMAND ...",
            "",
            "ATSS, a one-stage object detector with adaptive training sample selection, on Detectron2",
            "",
            *lines,
            "",
            "`atss COMMAND --help` shows the arguments of a command, `atss --version` the version.",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; `arguments` replace sys.argv. Exits with status 2 if there is no such command."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("--help", "-h"):
        print(usage())
    elif name == "--version":
        print(f"atss {metadata.version('atss')}")
    elif name not in COMMANDS:
        similar = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(COMMANDS)}"
        print(f"error: atss has no command {name!r}; {hint}", file=sys.stderr)
        raise SystemExit(2)
    else:
        module, first, _ = COMMANDS[name]
        sys.argv[0] = f"atss {name}"  # argparse names it in the help
        gc.disable()  # imports leave no garbage, and looking for it takes a fifth of their time
        command = importlib.import_module(f"atss.commands.{module}")
        gc.freeze()
        gc.enable()
        command.run([*first, *rest])


if __name__ == "__main__":
    main()
