"""The table of commands, in the order in which `--help` lists them."""

from __future__ import annotations

from pipeline.commands import (
    cache,
    calibrate,
    compare,
    describe_head,
    evaluate,
    evaluate_detector,
    export,
    label,
    label_local,
    live,
    render,
    report,
    runtimes,
    train_backbone,
    train_detector,
    train_head,
)
from pipeline.commands.command import Command

DEFAULT_COMMAND = label.COMMAND.name

COMMANDS: dict[str, Command] = {
    module.COMMAND.name: module.COMMAND
    for module in (
        label,
        label_local,
        live,
        train_head,
        train_backbone,
        train_detector,
        evaluate,
        calibrate,
        describe_head,
        evaluate_detector,
        report,
        render,
        export,
        compare,
        runtimes,
        cache,
    )
}
