"""A fleet file becomes a catalog: tasks, variants, and how a replica of each is started.

Rules this module keeps:

1. Everything that is wrong with what the file points at is found in one pass and named with line and key.
2. An artefact's digest is taken here and travels with its replica: what was checked is what is loaded.
3. A secret (a key, headers for an upstream) is no part of a catalog: it joins the replica when that is started,
   and so it is never journaled or shown.
4. What the fleet file states wins over what is noted beside an artefact, and that over a default.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from semaforo.build.features import profiles_of, sources_of
from semaforo.build.graphs import graph_of, graph_problems, imported, is_supple
from semaforo.build.routers import routers_of, task_model_of
from semaforo.build.tasks import task_type
from semaforo.catalog import Catalog, Scaling
from semaforo.config import FleetFile, FleetFileError, ModelSettings, Problem, VariantSettings, load_fleet
from semaforo.config.settings import BudgetsSettings
from semaforo.config.tensors import from_upstreams
from semaforo.entities import (
    BatchProfile,
    Budget,
    Cost,
    Privacy,
    ReplicaSpec,
    StreamProfile,
    TaskType,
    TensorSpec,
    Variant,
    devices_of,
)
from semaforo.entities.interface import roles
from semaforo.errors import ArtefactError
from semaforo.features.plan import Sources
from semaforo.graph.graph import RUNTIME, Graph
from semaforo.repository import FORMATS, ModelFolder, measured, natural, runtime_of, verify
from semaforo.repository.routers import Routed
from semaforo.routing.tasks import TaskModel

T = TypeVar("T")
_DEFAULT = "default"
_PER_MILLION = 1e-6
_SECRET = ("key", "headers")

Secrets = dict[str, dict[str, Any]]


class Blueprint(msgspec.Struct, frozen=True):
    """What a fleet file amounts to.

    Attributes:
        catalog: What may be served.
        file: The file it came from.
        journal: File of the journal, or None.
        ring: Requests whose decisions are kept to be explained.
        history: Database of what is learned, or None.
        routers: Trained routers by task.
        tasks: What tells tasks apart, or None.
        sources: What looks at requests.
        secrets: By variant id, options of the runtime that stay out of the catalog.
    """

    catalog: Catalog
    file: FleetFile
    journal: Path | None
    ring: int
    secrets: Secrets
    history: Path | None = None
    routers: dict[str, Routed] = {}
    tasks: TaskModel | None = None
    sources: Sources = Sources()


def blueprint(path: str | Path, *, noted: bool = True, fitted: bool = True) -> Blueprint:
    """Read a fleet file and look at every artefact it names.

    Args:
        path: The fleet file.
        noted: Whether what was measured of an artefact counts, so that one which has changed since is refused.
        fitted: Whether what graphs are to be fitted by must be there; else a missing file stands for nothing yet.

    Raises:
        FleetFileError: All that is wrong, a line for each.
    """
    file = load_fleet(path)
    settings = file.settings
    journal = file.folder / settings.journal if settings.journal else None
    problems: list[Problem] = []

    def tried(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except FleetFileError as error:
            problems.extend(error.problems)
            return None

    routers = tried(lambda: routers_of(file)) if fitted else None
    tasks = tried(lambda: task_model_of(file)) if fitted else None
    sources = tried(lambda: sources_of(file))
    catalog = tried(lambda: catalog_of(file, noted=noted, fitted=fitted))
    if problems or sources is None or catalog is None:
        raise file.error(problems)
    sources = msgspec.structs.replace(sources, profiles=profiles_of(catalog))
    history = file.folder / settings.history if settings.history else None
    return Blueprint(
        catalog,
        file,
        journal,
        settings.explain.ring,
        _secrets(file, catalog),
        history,
        routers or {},
        tasks,
        sources,
    )


def _secrets(file: FleetFile, catalog: Catalog) -> Secrets:
    found: Secrets = {}
    for variant in catalog.variants.values():
        model = file.settings.models[variant.model]
        options = {**model.options, **model.variants.get(variant.name, VariantSettings()).options}
        hidden = {name: options[name] for name in _SECRET if name in options}
        if model.url and model.key:
            hidden["key"] = model.key
        if hidden:
            found[variant.id] = hidden
    return found


def catalog_of(file: FleetFile, *, noted: bool = True, fitted: bool = True) -> Catalog:
    """Turn settings into a catalog, with digests of all artefacts; `noted` and `fitted` as in `blueprint`.

    Raises:
        FleetFileError: Artefacts are missing, damaged or unreadable.
    """
    settings = file.settings
    tasks = {
        name: task_type(name, task, extras=from_upstreams(name, settings))
        for name, task in settings.tasks.items()
    }
    variants: dict[str, Variant] = {}
    templates: dict[str, ReplicaSpec] = {}
    scaling: dict[str, Scaling] = {}
    in_service: dict[str, str] = {}
    problems: list[Problem] = []
    for name, model in settings.models.items():
        try:
            folder = ModelFolder(file.folder / model.source) if model.source else None
            served, in_service[name] = _versions(model, folder)
        except ArtefactError as error:
            named = next((key for key in ("versions", "version") if getattr(model, key)), "source")
            problems.append(file.problem(("models", name, named), str(error)))
            continue
        for version in served:
            for title, variant in (model.variants or {_DEFAULT: VariantSettings()}).items():
                try:
                    entry = _Entry(
                        file, name, model, tasks[model.task], version, title, variant, folder, noted, fitted
                    )
                except ArtefactError as error:
                    key = (
                        ("models", name, "variants", title) if model.variants else ("models", name, "source")
                    )
                    problems.append(file.problem(key, str(error)))
                    continue
                variants[entry.id] = entry.variant()
                templates[entry.id] = entry.template()
                scaling[entry.id] = Scaling(*(variant.replicas or model.replicas))
    budgets = _budgets(settings.budgets)
    catalog = Catalog(tasks, variants, templates, scaling, dict(settings.aliases), in_service, budgets)
    problems += graph_problems(file, catalog, fitted=fitted)
    if problems:
        raise file.error(problems)
    return catalog


def _budgets(stated: BudgetsSettings) -> dict[str, Budget]:
    named = {f"task:{name}": budget for name, budget in stated.tasks.items()}
    named |= {f"tenant:{name}": budget for name, budget in stated.tenants.items()}
    found = {"fleet": stated.fleet, "tenant:*": stated.each_tenant, **named}
    return {key: Budget(budget.spend, budget.per) for key, budget in found.items() if budget is not None}


def _versions(model: ModelSettings, folder: ModelFolder | None) -> tuple[list[str], str]:
    if folder is None:
        return ["1"], "1"
    known = folder.versions()
    newest = max(model.versions, key=natural) if model.versions else known[-1]
    in_service = model.version or newest
    served = list(model.versions) or [in_service]
    for version in served:
        if version not in known:
            raise ArtefactError(f"{folder.path} has no version '{version}'; it has {', '.join(known)}")
    return served, in_service


class _Entry:
    """One variant of one version while it is put together."""

    def __init__(
        self,
        file: FleetFile,
        name: str,
        model: ModelSettings,
        task: TaskType,
        version: str,
        title: str,
        variant: VariantSettings,
        folder: ModelFolder | None,
        noted: bool,
        fitted: bool,
    ) -> None:
        self.id = f"{name}/{version}/{title}"
        self._file, self._name, self._model, self._task = file, name, model, task
        self._version, self._title, self._variant = version, title, variant
        self._device = variant.device or model.device
        self._artefact = folder.file(version, variant.file) if folder else None
        self._note = measured(self._artefact) if self._artefact and noted else None
        self._digest = ""
        self._graph: Graph | None = None
        if model.graph is not None:
            self._graph = graph_of(name, task.name, model.graph, file.folder, fitted=fitted)
        self._runtime = RUNTIME if model.graph else model.runtime or self._found()
        if self._artefact:
            expected = variant.sha256
            if self._note and self._note.sha256 and not expected:
                expected = self._note.sha256
            self._digest = verify(self._artefact, expected)

    def variant(self) -> Variant:
        model, variant, note = self._model, self._variant, self._note
        stated = variant.quality if variant.quality is not None else model.quality
        profile = (note.batch_profile() if note else None) or BatchProfile(base_s=0.001, row_s=0.001)
        chat = self._task.kind == "chat"
        return Variant(
            id=self.id,
            model=self._name,
            version=self._version,
            name=self._title,
            task=self._task.name,
            quality=stated if stated is not None else note.quality if note else None,
            cost=self._cost(),
            profile=self._stream() if chat else profile,
            max_rows=1 if chat or model.graph or self._one_by_one() else variant.max_batch or model.max_batch,
            sees=self._sees(),
            capabilities=self._capabilities(),
            context=model.context,
            kind=self._task.kind,
            supple=self._graph is not None and is_supple(self._graph),
        )

    def template(self) -> ReplicaSpec:
        model, variant = self._model, self._variant
        options = {**model.options, **variant.options}
        if model.url:
            options = {"model": self._name, **options}
        options = {name: value for name, value in options.items() if name not in _SECRET}
        runtime = self._runtime
        if model.graph is not None:
            options |= {
                "graph": msgspec.to_builtins(self._graph),
                "in_flight": model.graph.in_flight,
                "forget_s": model.graph.forget,
            }
        if self._task.kind == "chat" and runtime in ("openai", "python"):
            options = {"slots": model.stream.slots, **options}
        if self._task.interface and runtime == "openai":
            labels = list(roles(self._task).output.labels)
            options = {"interface": self._task.interface, **({"labels": labels} if labels else {}), **options}
        return ReplicaSpec(
            id="",
            variant=self.id,
            runtime=runtime,
            source=str(self._artefact) if self._artefact else model.url or self._import(),
            isolation=variant.isolation or model.isolation,  # type: ignore[arg-type]  # checked by its form
            device=self._device,
            options=options,
            adapter=model.adapter,
            max_rows=variant.max_batch or model.max_batch,
            python=model.interpreter,
            digest=self._digest,
            task=self._task.name,
            inputs=tuple(_plain(spec) for spec in self._task.inputs),
            outputs=tuple(_plain(spec) for spec in self._task.outputs),
        )

    def _found(self) -> str:
        if self._artefact is None:
            return "python" if self._model.python else "openai"
        found = runtime_of(self._artefact)
        if found is None:
            raise ArtefactError(
                f"{self._artefact}: no built-in runtime reads it; they read {', '.join(FORMATS)} "
                "(as LightGBM and XGBoost write .txt and .json). Name its `runtime`"
            )
        return found

    def _one_by_one(self) -> bool:
        # OpenAI's protocol takes one file in a request; several requests run at once instead.
        return self._runtime == "openai" and self._task.interface == "transcription"

    def _capabilities(self) -> tuple[str, ...]:
        found = self._model.capabilities
        completes = {**self._model.options, **self._variant.options}.get("completions") is True
        return (*found, "completion") if completes and "completion" not in found else found

    def _import(self) -> str:
        return imported(self._model.python, self._file.folder)

    def _cost(self) -> Cost:
        charged = self._variant.cost or self._model.cost
        devices = self._file.settings.devices
        each = [devices.get(name) or devices.get(name.partition(":")[0]) for name in devices_of(self._device)]
        # A graph holds no device: its steps pay, and what they come to is learned.
        free = self._model.url or self._model.graph is not None
        price = 0.0 if free else sum(device.price for device in each if device)
        return Cost(
            second=price,
            input_token=charged.input * _PER_MILLION,
            output_token=charged.output * _PER_MILLION,
            request=charged.request,
        )

    def _sees(self) -> Privacy:
        if self._model.sees:
            return max(Privacy[word.upper()] for word in self._model.sees)
        return Privacy.PUBLIC if self._model.url else Privacy.SITE

    def _stream(self) -> StreamProfile:
        guess = self._model.stream
        return StreamProfile(guess.first, guess.prompt_token, guess.token, guess.slots, guess.tokens)


def _plain(spec: TensorSpec) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(spec)
    return plain
