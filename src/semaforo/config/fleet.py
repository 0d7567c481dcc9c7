"""One fleet file, read: settings, and the line of every key for whoever finds a problem later."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from semaforo.config.document import Document, Problem
from semaforo.config.reader import Reader
from semaforo.config.rules import check
from semaforo.config.settings import FleetSettings
from semaforo.errors import ConfigError


class FleetFileError(ConfigError):
    """Everything that is wrong with a fleet file, a line for each.

    Attributes:
        problems: What is wrong, in the order of the file.
    """

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(problem.show(file) for problem in self.problems))


class FleetFile:
    """A fleet file whose keys all have the right form and fit together.

    Attributes:
        settings: Its values.
        folder: Folder that its paths are relative to.
        name: How messages call it.
    """

    def __init__(
        self, settings: FleetSettings, folder: Path, name: str, lines: Mapping[tuple[str, ...], int]
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.name = name
        self._lines = lines

    def problem(self, key: tuple[str, ...], message: str) -> Problem:
        """Date a problem with the line of a key, or of the nearest key above it."""
        return Problem(_line(self._lines, key), ".".join(key), message)

    def error(self, problems: Sequence[Problem]) -> FleetFileError:
        """Return the error that lists these problems."""
        return FleetFileError(self.name, problems)


def load_fleet(path: str | Path, environment: Mapping[str, str] | None = None) -> FleetFile:
    """Read a fleet file.

    Raises:
        FleetFileError: What is wrong with it: all of it, each with its line and key.
    """
    path = Path(path)
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = "no such file. `semaforo init FOLDER` writes one, or name another"
        raise FleetFileError(name, [Problem(0, "", text)]) from None
    except IsADirectoryError:
        within = "" if not (path / "fleet.yaml").is_file() else f" Did you mean '{path / 'fleet.yaml'}'?"
        raise FleetFileError(name, [Problem(0, "", f"is a folder: name the file in it.{within}")]) from None
    except UnicodeDecodeError as error:
        text = f"is not text: byte {error.start + 1} is not UTF-8. Name the fleet file, not a model"
        raise FleetFileError(name, [Problem(0, "", text)]) from None
    except OSError as error:
        raise FleetFileError(name, [Problem(0, "", f"cannot be read: {error.strerror}")]) from None
    return parse_fleet(text, folder=path.resolve().parent, name=name, environment=environment)


def parse_fleet(
    text: str, *, folder: Path, name: str = "fleet.yaml", environment: Mapping[str, str] | None = None
) -> FleetFile:
    """Read the text of a fleet file whose paths are relative to `folder`; see `load_fleet`."""
    document = Document(os.environ if environment is None else environment)
    root = document.parse(text)
    if root is None:
        raise FleetFileError(name, document.problems)
    reader = Reader()
    settings = reader.struct(FleetSettings, root, ())
    unread = {problem.key for problem in document.problems}
    problems = document.problems + [found for found in reader.problems if found.key not in unread]
    if settings is not None:
        wrong = {problem.key for problem in problems}

        def say(key: tuple[str, ...], message: str) -> None:
            dotted = ".".join(key)
            if not any(known == dotted or known.startswith(dotted + ".") for known in wrong):
                problems.append(Problem(_line(reader.lines, key), dotted, message))

        check(settings, reader.lines.__contains__, say)
    if problems or settings is None:
        raise FleetFileError(name, problems)
    return FleetFile(settings, folder, name, reader.lines)


def _line(lines: Mapping[tuple[str, ...], int], key: tuple[str, ...]) -> int:
    while key and key not in lines:
        key = key[:-1]
    return lines.get(key, 0)
