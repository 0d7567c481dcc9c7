"""What looks at requests: extractors that are installed, and functions of tasks' own.

Extractors come through entry points of the group ``semaforo.features``, the built-in ones too: a function of one
input ``(rows, …)`` and what the fleet file says of it (`semaforo.entities.Look`), which returns numbers by name.
"""

from __future__ import annotations

import logging
from pathlib import Path

from semaforo.build.graphs import imported
from semaforo.catalog import Catalog
from semaforo.config import FleetFile, Problem
from semaforo.errors import ArtefactError, RuntimeLoadError, nearest
from semaforo.features.plan import GENERAL, Extractor, Own, Sources
from semaforo.features.profile import DataProfile
from semaforo.plugins import installed, loaded
from semaforo.repository.profiled import profiled
from semaforo.runtime.python_source import find_object

log = logging.getLogger("semaforo.features")

GROUP = "semaforo.features"
BUILT_IN = {
    "image": "semaforo.features.image:image_numbers",
    "audio": "semaforo.features.audio:audio_numbers",
    "table": "semaforo.features.table:table_numbers",
}


def sources_of(file: FleetFile) -> Sources:
    """Load what looks at the requests of a fleet; only what it asks for is imported beside the built-in ones.

    Raises:
        FleetFileError: An extractor or a function cannot be found.
    """
    points = installed(GROUP, BUILT_IN)
    extractors: dict[str, Extractor] = {}
    own: dict[str, Own] = {}
    problems: list[Problem] = []
    wanted: dict[str, tuple[str, ...]] = dict.fromkeys(BUILT_IN, ("tasks",))
    for task, settings in file.settings.tasks.items():
        for name, tensor in settings.inputs.items():
            key = ("tasks", task, "inputs", name, "looks")
            if tensor.looks in points:
                wanted.setdefault(tensor.looks, key)
            elif tensor.looks and tensor.looks not in GENERAL:
                known = sorted((*GENERAL, *points))
                text = (
                    f"nothing looks at inputs as '{tensor.looks}'.{nearest(tensor.looks, known)} There are "
                )
                problems.append(file.problem(key, text + ", ".join(known)))
        if settings.features:
            try:
                own[task] = _function(imported(settings.features, file.folder))
            except RuntimeLoadError as error:
                problems.append(file.problem(("tasks", task, "features"), str(error)))
    for name, place in wanted.items():
        try:
            extractors[name] = loaded(points[name])
        except (ImportError, AttributeError) as error:
            text = f"the extractor '{name}' ({points[name].value}) cannot be imported here: {error}"
            problems.append(file.problem(place, text))
    if problems:
        raise file.error(problems)
    return Sources(extractors, own)


def profiles_of(catalog: Catalog) -> dict[str, DataProfile]:
    """Return by id of a variant what its artefact was measured on, where that is noted beside it.

    A note that cannot be read is said and counts for nothing: no request depends on it.
    """
    found: dict[str, DataProfile] = {}
    for name, template in catalog.templates.items():
        if not template.digest:
            continue
        try:
            profile = profiled(Path(template.source), template.digest)
        except ArtefactError as error:
            log.warning("%s", error.message)
            continue
        if profile is not None:
            found[name] = profile
    return found


def _function(source: str) -> Own:
    found = find_object(source)
    if not callable(found):
        raise RuntimeLoadError(f"'{source}' is no function")
    function: Own = found
    return function
