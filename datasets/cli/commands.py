"""Every command: its name behind ``autolabel``, its file, where it is implemented.

A command is two modules: ``PACKAGE.options.MODULE`` with ``parse(argv)``, which imports nothing
slow, and ``PACKAGE.MODULE`` with ``run(args)``, which gives the exit code.
"""

from __future__ import annotations

from dataclasses import dataclass

from datasets.cli.supervisor import Leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command.

    Attributes:
        file: the script that starts it, from the root of a clone.
        resumable: the same command, started again, continues a stopped one.
        leaves: how it ends when it is stopped (``datasets.cli.supervisor.leaving``).
        supervised: by a process in front of it; else it ends at Ctrl-C by itself.
    """

    file: str
    package: str
    module: str
    summary: str
    resumable: bool = False
    leaves: Leaves = "interrupted"
    supervised: bool = True


def _script(
    file: str, summary: str, *, package: str = "autolabel.commands", resumable: bool = False
) -> Command:
    return Command(
        file=f"scripts/{file}.py",
        package=package,
        module=file,
        summary=summary,
        resumable=resumable,
    )


COMMANDS = {
    "label": Command(
        file="autolabel/run.py",
        package="autolabel.commands",
        module="label_log",
        summary="label a split of a log into a store",
        resumable=True,
        leaves="at once",
    ),
    "check-log": _script("check_log", "check a log before labeling", package="viz.commands"),
    "make-labels": _script("make_labels", "build ground truth from LiDAR and boxes"),
    "calibrate": _script("calibrate", "calibrate the confidence of weights"),
    "audit": Command(
        file="autolabel/audit.py",
        package="autolabel.commands",
        module="audit_labels",
        summary="find wrong labels and faults of a log without ground truth",
    ),
    "select": _script("select_scenes", "choose what to label next"),
    "train-teacher": _script("train_teacher", "train a LiDAR-camera teacher", resumable=True),
    "train-student": _script("train_student", "train a camera-only student", resumable=True),
    "evaluate": _script("evaluate", "score weights or a store against ground truth"),
    "store": _script("store", "look after a store: info, verify, diff, merge, prune, export"),
    "inspect": Command(
        file="viz/inspect.py",
        package="viz.commands",
        module="inspect_labels",
        summary="review labels in a window or a browser",
        supervised=False,
    ),
    "report": Command(
        file="viz/report.py",
        package="viz.commands",
        module="write_report",
        summary="write one HTML page on a store",
    ),
    "export-onnx": _script("export_onnx", "export a student to ONNX"),
    "import-checkpoint": _script("import_checkpoint", "import published weights"),
    "make-city": _script("make_city", "generate the simulated city"),
    "convert-pandaset": _script("convert_pandaset", "convert PandaSet to a folder log"),
    "list-presets": _script("list_presets", "list the networks and recipes"),
    "demo": Command(
        file="scripts/demo.py",
        package="autolabel.commands",
        module="demo",
        summary="label the city, train a student, draw an image",
    ),
}
