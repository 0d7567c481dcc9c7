"""Whether the values of a fleet file fit together. Nothing here reads a file or loads a model.

The rules, in the order they are checked:

1. One name means one thing: a task, a model or an alias; an alias points at a task or a model.
2. Every model serves a task that exists; every task is served by a model, and says what goes in and out: as
   its kind has agreed, where that is one that OpenAI's routes offer.
3. A model comes from exactly one of `source`, `url`, `python` and `graph`, and each brings its own keys.
4. A preference is written one way, with the keys of that way.
5. Budgets are of tasks that exist. Devices exist; classes of data leave no gap; labels count the classes.
6. Webhooks are urls, and signed.
7. A step of a graph does one thing, and has the keys of that.
8. What compares requests by what they mean has an embedding to do it by, and texts to compare.
9. A judge is a chat that is not the task it judges, and is told the question and the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from string import Formatter

from semaforo.config.graphs import STEP_KEYS, GraphSettings
from semaforo.config.settings import (
    FleetSettings,
    JudgeSettings,
    ModelSettings,
    PreferSettings,
    TaskSettings,
)
from semaforo.config.tensor import TensorSettings
from semaforo.config.tensors import tensors_of
from semaforo.entities import Privacy, devices_of
from semaforo.entities.interface import INTERFACES, misfits
from semaforo.errors import nearest

Say = Callable[[tuple[str, ...], str], None]
_HOOK = re.compile(r"https?://[A-Za-z0-9._\[\]:-]+(/(?!.*(\.\.|%2e))[^\s?#@\\]*)?", re.IGNORECASE)
_DEVICE = re.compile(r"cpu|(cuda|rocm|xpu)(:\d+)?|mps|openvino|coreml|dml")


def check(fleet: FleetSettings, given: Callable[[tuple[str, ...]], bool], say: Say) -> None:
    """Say what does not fit; `given` tells whether a key stands in the file."""
    _names(fleet, say)
    for name, task in fleet.tasks.items():
        _task(name, task, fleet, given, say)
    for name, model in fleet.models.items():
        _model(name, model, fleet, given, say)
    for name in fleet.budgets.tasks:
        if name not in fleet.tasks:
            say(("budgets", "tasks", name), f"no task is named '{name}'.{nearest(name, fleet.tasks)}")
    _server(fleet, say)
    _deferred(fleet, say)


def _names(fleet: FleetSettings, say: Say) -> None:  # rule 1
    for name in fleet.models.keys() & fleet.tasks.keys():
        say(("models", name), f"a task is named '{name}' too. Rename one: a request names either")
    for alias, target in fleet.aliases.items():
        taken = "task" if alias in fleet.tasks else "model" if alias in fleet.models else ""
        if taken:
            say(("aliases", alias), f"a {taken} has this name already")
        elif target in fleet.aliases:
            say(("aliases", alias), f"'{target}' is an alias itself: name the model or task it stands for")
        elif target not in fleet.tasks and target not in fleet.models:
            hint = nearest(target, [*fleet.tasks, *fleet.models])
            say(("aliases", alias), f"no model or task is named '{target}'.{hint}")


def _task(
    name: str, task: TaskSettings, fleet: FleetSettings, given: Callable[[tuple[str, ...]], bool], say: Say
) -> None:  # rules 2 and 4
    here = ("tasks", name)
    if not any(model.task == name for model in fleet.models.values()):
        say(here, "no model serves this task. Add one with `task: " + name + "`, or leave the task out")
    if task.kind == "tensor":
        for side in ("inputs", "outputs"):
            if not getattr(task, side):
                say((*here, side), "is missing: a task says what goes in and out, e.g. {image: fp32[64]}")
    if task.kind in INTERFACES:
        inputs, outputs = tensors_of(task)
        for misfit in misfits(task.kind, inputs, outputs):
            key, _, message = misfit.partition(": ")
            say((*here, *key.split(".")), message)
    for side in ("inputs", "outputs"):
        tensors = getattr(task, side)
        if task.kind == "chat" and tensors:
            say((*here, side), "a chat task takes messages and has no tensors")
        for tensor, spec in tensors.items():
            _labels((*here, side, tensor), spec.type.shape, spec.labels, say)
            _looks((*here, side, tensor), side, spec, say)
    if 0 < task.hedge < 1:
        say((*here, "hedge"), f"{task.hedge:g} would run a second copy of all work: take 0, or more than 1")
    _prefer((*here, "prefer"), task.prefer, given, say)
    _semantic((*here, "cache", "semantic"), task, fleet, say)
    if task.judge is not None:
        _judge((*here, "judge"), name, task.judge, fleet, say)
    if task.router is not None and task.router.embedding:
        _serves(fleet, (*here, "router", "embedding"), task.router.embedding, "embedding", say)


def _semantic(here: tuple[str, ...], task: TaskSettings, fleet: FleetSettings, say: Say) -> None:  # rule 8
    semantic = task.cache.semantic
    if semantic is None:
        return
    if not task.cache.exact:
        say(here, "goes with `exact: true`: what is kept is found by its very words first")
    _serves(fleet, (*here, "embedding"), semantic.embedding, "embedding", say)
    if semantic.judge:
        _serves(fleet, (*here, "judge"), semantic.judge, "chat", say)
    if task.kind == "chat":
        if semantic.input:
            say(
                (*here, "input"),
                "means nothing for a chat, whose user's last words are compared: leave it out",
            )
        return
    if semantic.judge:
        say((*here, "judge"), "judges chats; tensors are compared as they are: leave it out")
    if task.kind in ("embedding", "transcription"):
        say(here, f"the answer of a task of kind {task.kind} is never another request's: leave it out")
        return
    texts = [spec.name for spec in tensors_of(task)[0] if spec.dtype == "BYTES"]
    if semantic.input and semantic.input not in texts:
        say(
            (*here, "input"),
            f"no input of texts is named '{semantic.input}'.{nearest(semantic.input, texts)}",
        )
    elif not semantic.input and len(texts) != 1:
        has = f"has {', '.join(texts)}: name one by `input`" if texts else "takes no texts to compare"
        say(here, f"this task {has}")


def _judge(
    here: tuple[str, ...], task: str, judge: JudgeSettings, fleet: FleetSettings, say: Say
) -> None:  # rule 9
    _serves(fleet, (*here, "model"), judge.model, "chat", say)
    if fleet.aliases.get(judge.model, judge.model) == task:
        say((*here, "model"), "is the task itself: name one of its models, or another task")
    try:
        found = [part[1:] for part in Formatter().parse(judge.prompt) if part[1] is not None]
    except ValueError as error:
        say((*here, "prompt"), f"cannot be read: {error}. Braces that mean themselves are doubled")
        return
    if {name for name, *_ in found} != {"question", "answer"} or any(spec or way for _, spec, way in found):
        say((*here, "prompt"), "has to hold {question} and {answer}, and nothing else in braces")


def _serves(fleet: FleetSettings, here: tuple[str, ...], name: str, kind: str, say: Say) -> None:
    """Say where a name is none of what does a kind of work."""
    target = fleet.aliases.get(name, name)
    served = fleet.models[target].task if target in fleet.models else target
    task = fleet.tasks.get(served)
    if task is None:
        say(here, f"no model or task is named '{name}'.{nearest(name, [*fleet.tasks, *fleet.models])}")
    elif task.kind != kind:
        say(here, f"'{name}' is of kind {task.kind}: name a task or model of kind {kind}")


def _labels(here: tuple[str, ...], shape: tuple[int, ...], labels: tuple[str, ...], say: Say) -> None:
    if labels and shape and shape[-1] > 0 and len(labels) != shape[-1]:
        say((*here, "labels"), f"{len(labels)} labels for {shape[-1]} classes")
    if len(set(labels)) < len(labels):
        say((*here, "labels"), "a label stands twice")


def _looks(here: tuple[str, ...], side: str, tensor: TensorSettings, say: Say) -> None:
    for key in ("looks", "rate"):
        if side == "outputs" and getattr(tensor, key):
            say((*here, key), "is said of inputs: an output is not looked at")
    words = tensor.type.dtype == "BYTES"
    if words and tensor.looks in ("table", "tensor"):
        say((*here, "looks"), f"bytes are no {tensor.looks}: take text, image, audio or none")
    if tensor.looks == "text" and not words:
        say(
            (*here, "looks"),
            f"{tensor.type.dtype.lower()} is no text: take tensor, table, image, audio or none",
        )


def _prefer(
    here: tuple[str, ...], prefer: PreferSettings, given: Callable[[tuple[str, ...]], bool], say: Say
) -> None:  # rule 4
    weights = [key for key in ("quality", "latency", "cost") if given((*here, key))]
    ways = [way for way in ("minimise", "maximise") if given((*here, way))]
    if len(ways) + bool(weights) > 1:
        say(here, f"{' and '.join([*ways, *weights])} exclude each other: "
            "minimise cost, or maximise quality, or give weights")  # fmt: skip
    for key, way in (("keep_quality", "minimise"), ("within", "maximise"), ("at_most", "maximise")):
        if given((*here, key)) and not getattr(prefer, way):
            goal = {"minimise": "minimise: cost", "maximise": "maximise: quality"}[way]
            say((*here, key), f"goes with `{goal}`")
    if weights and prefer.quality == prefer.latency == prefer.cost == 0:
        say(here, "all weights are 0, so nothing would be preferred")


def _model(
    name: str, model: ModelSettings, fleet: FleetSettings, given: Callable[[tuple[str, ...]], bool], say: Say
) -> None:
    here = ("models", name)
    task = fleet.tasks.get(model.task)
    if task is None:  # rule 2
        say((*here, "task"), f"no task is named '{model.task}'.{nearest(model.task, fleet.tasks)}")
    origins = [key for key in ("source", "url", "python", "graph") if getattr(model, key)]  # rule 3
    if len(origins) != 1:
        say(here, "says both " + " and ".join(origins) + ": keep one" if origins
            else "has no `source`, `url`, `python` or `graph`: say where the model is")  # fmt: skip
        return
    _origin(here, origins[0], model, task, given, say)
    if model.graph is not None:
        _graph((*here, "graph"), model.graph, given, say)
    devices = {("device",): model.device} | {
        ("variants", key, "device"): variant.device
        for key, variant in model.variants.items()
        if variant.device
    }
    for key, group in devices.items():  # rule 5
        _devices((*here, *key), devices_of(group), fleet, say)
    classes = {Privacy[word.upper()] for word in model.sees}
    if classes and classes != set(range(max(classes) + 1)):
        missing = next(p for p in Privacy if p not in classes)
        say(
            (*here, "sees"),
            f"leaves out '{missing.name.lower()}', which is less private than the rest: add it",
        )


def _graph(
    here: tuple[str, ...], graph: GraphSettings, given: Callable[[tuple[str, ...]], bool], say: Say
) -> None:  # rule 7
    for name, step in graph.steps.items():
        at = (*here, "steps", name)
        kinds = [kind for kind in STEP_KEYS if getattr(step, kind)]
        if len(kinds) != 1:
            say(at, "says both " + " and ".join(kinds) + ": keep one" if kinds
                else "has no `ask`, `call`, `fuse`, `loop` or `verify`: say what the step does")  # fmt: skip
            continue
        for kind, keys in STEP_KEYS.items():
            for key in keys:
                if kind != kinds[0] and key not in STEP_KEYS[kinds[0]] and given((*at, key)):
                    say((*at, key), f"means nothing for a step with `{kinds[0]}`: leave it out")


def _devices(here: tuple[str, ...], group: tuple[str, ...], fleet: FleetSettings, say: Say) -> None:
    for device in dict.fromkeys(group):
        if not _DEVICE.fullmatch(device) and device not in fleet.devices:
            known = ["cpu", "cuda", "cuda:0", *fleet.devices]
            hint = nearest(device, known)
            say(here, f"no device is named '{device}'. List it under `devices`.{hint}")
        if group.count(device) > 1:
            say(here, f"'{device}' stands twice")


def _origin(
    here: tuple[str, ...],
    origin: str,
    model: ModelSettings,
    task: TaskSettings | None,
    given: Callable[[tuple[str, ...]], bool],
    say: Say,
) -> None:  # rule 3
    wrong = {
        "source": ("key", "context", "capabilities", "stream", "cost"),
        "python": ("key", "version", "versions", "cost"),
        "graph": (
            "key",
            "version",
            "versions",
            "cost",
            "isolation",
            "interpreter",
            "device",
            "adapter",
            "options",
            "max_batch",
            "variants",
            "runtime",
            "replicas",
        ),
        "url": (
            "version",
            "versions",
            "isolation",
            "interpreter",
            "device",
            "context",
            "capabilities",
            "stream",
        ),
    }[origin]
    if task is not None and task.kind == "chat":
        wrong = tuple(key for key in wrong if key not in ("context", "capabilities", "stream"))
    for key in wrong:
        if given((*here, key)):
            say((*here, key), f"means nothing for a model with `{origin}`: leave it out")
    if model.version and model.versions and model.version not in model.versions:
        say((*here, "version"), f"'{model.version}' is not among `versions`")
    for name, variant in model.variants.items():
        at = (*here, "variants", name)
        if origin == "source" and not variant.file:
            say((*at, "file"), "is missing: name the file inside the version's folder")
        if origin != "source" and variant.file:
            say((*at, "file"), f"means nothing for a model with `{origin}`: leave it out")
    if task is None:
        return
    if origin == "url" and task.kind == "tensor" and model.runtime in ("", "openai"):
        say(
            (*here, "url"),
            f"'{model.task}' takes tensors, and the runtime openai serves tasks of kind chat, "
            f"{', '.join(INTERFACES)}: say which kind it is, or `runtime: oip` for a V2 server",
        )
    if model.runtime == "oip" and task.kind == "chat":
        say(
            (*here, "runtime"),
            f"'{model.task}' is a chat task, and oip serves tensors: leave the runtime out",
        )
    if model.runtime == "oip" and origin != "url":
        say((*here, "runtime"), "oip serves a model behind a `url`: say where its server is")
    if origin == "source" and task.kind == "chat":
        say((*here, "source"), f"'{model.task}' is a chat task: it is served by a `url` or by `python`")
    if task.kind == "chat" and model.adapter is not None:
        say((*here, "adapter"), "means nothing for a chat: leave it out")


def _deferred(fleet: FleetSettings, say: Say) -> None:  # rule 6
    deferred = fleet.deferred
    if deferred is None:
        return
    for index, url in enumerate(deferred.webhooks):
        if not _HOOK.fullmatch(url):
            say(
                ("deferred", "webhooks", str(index)),
                f"'{url}' is not a url: write one without user, query or '..', e.g. https://hooks.example/done",
            )
    if deferred.webhooks and not deferred.secret:
        say(("deferred", "secret"), "is missing: webhooks are signed, so give a secret, e.g. ${HOOK_SECRET}")


def _server(fleet: FleetSettings, say: Say) -> None:
    seen: set[str] = set()
    for index, key in enumerate(fleet.server.keys):
        if key.key in seen:
            say(("server", "keys", str(index)), "this key stands twice")
        seen.add(key.key)
