"""Asks workers elsewhere, before they work, whether they can import this program in the version of the run.

Without it a worker that lacks the program fails before any stage of ours begins. A runner such as Flink then starts it
again and again, and reports nothing until it gives up. The question is code that travels with the graph: a worker needs
nothing but Beam to run it. The answer is a note for the driver, as in `telling.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType

import apache_beam as beam

from transforms.storage.staged_files import FAILURE

ASKED = 64  # elements, which runners spread over their workers
CURE = (
    "install the same version in the workers' image or environment (docs/scaling.md), "
    "or send it with --setup_file=PATH/setup.py"
)


class CheckWorkers(beam.PTransform):
    """Fails, and leaves a note for the driver, where a worker cannot import what the stages need.

    Attributes:
        tell: folder or prefix that the driver watches.
        modules: what to import; the first belongs to the package that has the version.
        version: of the program that started the run.
        error: class that the note names, as a traceback would; it decides how the command ends.
    """

    def __init__(self, tell: str, modules: Sequence[str], version: str, error: str) -> None:
        super().__init__()
        self.tell, self.modules, self.version, self.error = tell, tuple(modules), version, error

    def expand(self, root: beam.Pipeline) -> beam.PCollection[None]:
        """Returns a collection of nothing, which no other stage reads."""
        asked = question(self.tell, self.modules, self.version, self.error)
        return root | "ListQuestions" >> beam.Create(range(ASKED)) | "AskWorker" >> beam.Map(asked)


def question(tell: str, modules: Sequence[str], version: str, error: str) -> Callable[[int], None]:
    """Returns the function that workers run, for the arguments of `CheckWorkers`.

    It is pickled with its code, as it is no function of a module, and so must import all it uses.
    """

    def ask(number: int) -> None:
        import importlib
        import os
        import socket

        try:
            found = importlib.import_module(modules[0].partition(".")[0]).__version__
            for name in modules:
                importlib.import_module(name)
            if found == version:
                return
            fault = f"has version {found} of this program, not {version}"
        except Exception as cause:  # noqa: BLE001 - a broken library may raise anything while it is imported
            fault = f"cannot import this program ({type(cause).__name__}: {cause})"
        note = " ".join(f"{error}: worker {socket.gethostname()} {fault}; {cure}".split())
        path = f"{tell}/{note_name}"
        try:
            if "://" not in tell:
                draft = f"{path}.{socket.gethostname()}-{os.getpid()}.tmp"
                with open(draft, "w", encoding="utf-8") as file:
                    file.write(note)
                os.replace(draft, path)
            else:
                try:
                    importlib.import_module("transforms.storage.stores").store_of(tell).put_bytes(
                        note_name, note.encode()
                    )
                except ImportError:
                    from apache_beam.io.filesystems import FileSystems

                    with FileSystems.create(path, "text/plain") as upload:
                        upload.write(note.encode())
        except Exception as untold:  # noqa: BLE001 - each store fails in its own way; the runner gets the note itself
            note += f" (the driver cannot be told: {type(untold).__name__}: {untold})"
        raise RuntimeError(note)

    cure, note_name = CURE, FAILURE
    code = ask.__code__.replace(co_filename=__name__)  # pickled code and globals would name a path of the driver
    return FunctionType(code, {"__name__": __name__}, closure=ask.__closure__)
