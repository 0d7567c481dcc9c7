"""The fleet file as typed values: one struct for each mapping of the file, one field for each key.

Rules this module keeps:

1. Every key is documented here and nowhere else: the reference in the docs is made from these annotations.
2. A value here has the right form by itself; whether values fit together is `semaforo.config.rules`' matter.
3. A struct with `SHORT` may be written as one scalar, which then is that field.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from semaforo.config import forms
from semaforo.config.deferred import DeferredSettings
from semaforo.config.forms import Key, word, words
from semaforo.config.graphs import GraphSettings
from semaforo.config.server import ServerSettings
from semaforo.config.tensor import TensorSettings
from semaforo.entities.interface import INTERFACES


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    SHORT: ClassVar[str] = ""


class PreferSettings(_Settings, frozen=True, kw_only=True):
    """What to prefer among the variants that meet a request's contract; one of three ways."""

    minimise: Annotated[str, Key("Take the cheapest with `keep_quality` of the best.", word("cost"))] = ""
    keep_quality: Annotated[float, Key("Share of the best quality to keep.", forms.SHARE)] = 0.98
    maximise: Annotated[str, Key("Take the best that answers `within` the time.", word("quality"))] = ""
    within: Annotated[float | None, Key("How long an answer should take.", forms.DURATION)] = None
    at_most: Annotated[float | None, Key(
        "What a request should cost on average, by which quality is bought where it is cheapest.", forms.EACH,
    )] = None  # fmt: skip
    quality: Annotated[float, Key("Weight of quality.", forms.WEIGHT)] = 1.0
    latency: Annotated[float, Key("Weight of latency.", forms.WEIGHT)] = 0.2
    cost: Annotated[float, Key("Weight of cost.", forms.WEIGHT)] = 0.1


class ExploreSettings(_Settings, frozen=True, kw_only=True):
    """How much the router may try what does not look best, so that it goes on learning."""

    SHORT: ClassVar[str] = "share"

    share: Annotated[
        float, Key("Share of requests that another variant than the best may answer.", forms.SHARE)
    ] = 0.0
    by: Annotated[str, Key(
        "What is tried: all alike; what could be best; or each as often as it is likely to be best. The last two "
        "look at each request, and learn what each model is worth on requests like it.",
        word("epsilon", "linucb", "thompson"),
    )] = "epsilon"  # fmt: skip
    max_loss: Annotated[float, Key(
        "Quality that such an answer may be worse, at worst, as far as is known.", forms.SHARE,
    )] = 0.1  # fmt: skip
    shadow: Annotated[float, Key(
        "Share of requests of which a copy is asked of a variant that is not safe to try; nobody waits for it.",
        forms.SHARE,
    )] = 0.0  # fmt: skip


class RouterSettings(_Settings, frozen=True, kw_only=True):
    """A trained router, which predicts how much each model gains on a request."""

    SHORT: ClassVar[str] = "file"

    file: Annotated[str, Key(
        "File that `semaforo router train` wrote, or a folder with `<version>/<name>.router`; seen from the fleet "
        "file.",
    )]  # fmt: skip
    version: Annotated[str, Key("Version in service; the newest where left out.")] = ""
    sha256: Annotated[str, Key("Digest that the one in service must have.", forms.DIGEST)] = ""
    candidate: Annotated[str, Key("Version, or another file, that is tried beside the one in service.")] = ""
    share: Annotated[float, Key("Share of requests that the candidate decides, up to 0.9.", forms.SHARE)] = (
        0.0
    )
    shadow: Annotated[bool, Key(
        "Both look at every request, so that it is known where they would do otherwise; else only the one that "
        "decides does.",
    )] = True  # fmt: skip
    margin: Annotated[float, Key(
        "Score that the candidate may be behind and still count as not worse.", forms.SHARE,
    )] = 0.02  # fmt: skip
    promote: Annotated[str, Key(
        "`auto` puts the candidate in service once it is shown to be better, or not to be worse and not to cost "
        "more.", word("by hand", "auto"),
    )] = "by hand"  # fmt: skip
    wait: Annotated[float, Key("How long a request waits for it at most.", forms.DURATION)] = 0.02
    embedding: Annotated[str, Key(
        "Task, model or alias of kind `embedding` that embeds each request, for a router that was trained with "
        "embeddings; it is waited for within `wait`.",
    )] = ""  # fmt: skip


class SemanticSettings(_Settings, frozen=True, kw_only=True):
    """Answers that are given to requests which mean the same, once it is known how alike is alike enough.

    What is alike is found by an embedding; until pairs of requests have shown from which likeness on answers may be
    given, none is.
    """

    SHORT: ClassVar[str] = "embedding"

    embedding: Annotated[str, Key("Task, model or alias of kind `embedding` that says what a text means.")]
    input: Annotated[str, Key("Input whose text is compared, where a task of tensors has several.")] = ""
    wait: Annotated[float, Key("How long a request waits for its embedding at most.", forms.DURATION)] = 0.05
    most_wrong: Annotated[float, Key(
        "Quality that such answers may lose on average; it is kept with a confidence of 0.9.", forms.SHARE,
    )] = 0.02  # fmt: skip
    check: Annotated[float, Key(
        "Share of what could be answered so that is answered anew, to compare.", forms.SHARE,
    )] = 0.05  # fmt: skip
    judge: Annotated[str, Key(
        "Task, model or alias of kind `chat` that says whether the answer to a chat would have done, where two "
        "do not say the same words.",
    )] = ""  # fmt: skip


class CacheSettings(_Settings, frozen=True, kw_only=True):
    """Answers that are given again to the very same request of the same tenant, or to one that means the same."""

    SHORT: ClassVar[str] = "exact"

    exact: Annotated[bool, Key("Keep answers.")] = False
    semantic: Annotated[SemanticSettings | None, Key("Give them to requests that mean the same, too.")] = None
    size: Annotated[int, Key("Most to keep of a task.", forms.SIZE)] = 64_000_000
    keep: Annotated[float, Key("How long an answer is good.", forms.DURATION)] = 600.0
    sampled: Annotated[bool, Key(
        "Keep chats without `temperature: 0` or a `seed`, too: the same prompt then gets the same answer."
    )] = False  # fmt: skip


class JudgeSettings(_Settings, frozen=True, kw_only=True):
    """A chat of the fleet that says what answers are worth, once they are out."""

    SHORT: ClassVar[str] = "model"

    model: Annotated[str, Key(
        "Model, task or alias of kind `chat` that judges; it needs to see what requests hold."
    )]  # fmt: skip
    share: Annotated[float, Key("Share of answers that are judged.", forms.SHARE)] = 0.05
    prompt: Annotated[str, Key(
        "What it is told, with `{question}` and `{answer}` in it. The first number of its reply is the score: 0 to "
        "1, `70 %` or `7/10`."
    )] = (
        "A question:\n{question}\n\nAn answer to it:\n{answer}\n\nHow good is the answer? Reply with one number "
        "from 0 (wrong or of no use) to 1 (right and complete), and nothing else."
    )  # fmt: skip


class TaskSettings(_Settings, frozen=True, kw_only=True):
    """What clients ask for by name."""

    kind: Annotated[str, Key(
        "`tensor` for tensors, `chat` for messages. An `embedding`, `moderation` or `transcription` is a task "
        "of tensors that OpenAI's routes offer too; its tensors are agreed where they are left out.",
        word("tensor", "chat", *INTERFACES),
    )] = "tensor"  # fmt: skip
    inputs: Annotated[dict[str, TensorSettings], Key("Tensors a request gives.")] = {}
    outputs: Annotated[dict[str, TensorSettings], Key("Tensors an answer holds.")] = {}
    prefer: Annotated[PreferSettings, Key("What to prefer among variants in contract.")] = PreferSettings()
    router: Annotated[RouterSettings | None, Key("Predicts which model does best on each request.")] = None
    features: Annotated[str, Key(
        "`module:function` or `file.py:function` that says more of a request to its router, as numbers by name: "
        "it is given one mapping, of inputs by name, each `(rows, …)`, or the body of a chat.", forms.IMPORT,
    )] = ""  # fmt: skip
    cache: Annotated[CacheSettings, Key("Answers that are given again.")] = CacheSettings()
    explore: Annotated[ExploreSettings, Key("What may be tried for the sake of learning.")] = (
        ExploreSettings()
    )
    judge: Annotated[JudgeSettings | None, Key("Says what a share of the answers is worth.")] = None
    deadline: Annotated[float | None, Key("Deadline where a request states none.", forms.DURATION)] = None
    evaluate: Annotated[str, Key("Data that measures the quality of each variant.")] = ""
    max_queue: Annotated[int, Key("Bound of the queue, in rows; more is refused.", forms.COUNT)] = 4096
    hedge: Annotated[float, Key(
        "Run a second copy of work that takes this many times its prediction; 0 = never.", forms.WEIGHT,
    )] = 0.0  # fmt: skip


class DeviceSettings(_Settings, frozen=True, kw_only=True):
    """What a device costs."""

    price: Annotated[float, Key("What the device costs while it works.", forms.PRICE)] = 0.0


class CostSettings(_Settings, frozen=True, kw_only=True):
    """What a model behind a url charges, in US dollars."""

    input: Annotated[float, Key("Dollars per million prompt tokens.", forms.DOLLARS)] = 0.0
    output: Annotated[float, Key("Dollars per million output tokens.", forms.DOLLARS)] = 0.0
    request: Annotated[float, Key("Dollars per request.", forms.DOLLARS)] = 0.0


class StreamSettings(_Settings, frozen=True, kw_only=True):
    """First guess of how a chat model serves; corrected by what is seen."""

    first: Annotated[float, Key("Time to the first token.", forms.DURATION)] = 0.2
    token: Annotated[float, Key("Time for each further token.", forms.DURATION)] = 0.02
    prompt_token: Annotated[float, Key("Time each prompt token adds to the first.", forms.DURATION)] = 0.0
    slots: Annotated[int, Key("Requests served at once by one replica.", forms.COUNT)] = 4
    tokens: Annotated[int, Key("Tokens one replica holds at once; 0 = no limit.", forms.COUNT_OR_NONE)] = 0


class VariantSettings(_Settings, frozen=True, kw_only=True):
    """One variant of a model: its file, or a mapping. What it leaves out is as the model says."""

    SHORT: ClassVar[str] = "file"

    file: Annotated[str, Key("File inside the version's folder.")] = ""
    quality: Annotated[float | None, Key(
        "Quality in the task's metric; `quality.json` beside the file where it is left out.", forms.SHARE,
    )] = None  # fmt: skip
    sha256: Annotated[str, Key("Digest the file must have.", forms.DIGEST)] = ""
    replicas: Annotated[tuple[int, int] | None, Key("How many copies to keep.", forms.REPLICAS)] = None
    device: Annotated[str, Key("Device to load it on, or several.", forms.DEVICES)] = ""
    isolation: Annotated[str, Key(
        "Where it runs.", word("auto", "inline", "thread", "process"),
    )] = ""  # fmt: skip
    max_batch: Annotated[int | None, Key("Most rows in one batch.", forms.COUNT)] = None
    options: Annotated[dict[str, Any], Key("Options of the runtime, on top of the model's.")] = {}
    cost: Annotated[CostSettings | None, Key("What it charges.")] = None


class ModelSettings(_Settings, frozen=True, kw_only=True):
    """A model that serves a task: from a folder, behind a url, a Python function, or a graph of other models."""

    task: Annotated[str, Key("Task it serves.")]
    source: Annotated[str, Key("Folder with `<version>/<file>`, or a file; seen from the fleet file.")] = ""
    url: Annotated[str, Key("Address of a model served elsewhere.", forms.URL)] = ""
    python: Annotated[
        str,
        Key("`module:function` or `file.py:function`, looked for beside the fleet file first.", forms.IMPORT),
    ] = ""
    graph: Annotated[GraphSettings | None, Key("Other models that it is made of.")] = None
    runtime: Annotated[str, Key(
        "Name of the runtime; found from the file's suffix, `python`, or `url` (openai) where left out.",
    )] = ""  # fmt: skip
    variants: Annotated[dict[str, VariantSettings], Key(
        "The same function at other costs: name → file, or name → mapping.",
    )] = {}  # fmt: skip
    version: Annotated[str, Key("Version in service; the newest where left out.")] = ""
    versions: Annotated[tuple[str, ...], Key(
        "Versions to load; the one in service where left out. Others answer requests that name them.",
    )] = ()  # fmt: skip
    replicas: Annotated[tuple[int, int], Key("How many copies to keep.", forms.REPLICAS)] = (1, 1)
    isolation: Annotated[str, Key(
        "Where it runs: `inline` in the server's loop, in a `thread`, in a `process` of its own, or as "
        "measured (`auto`).", word("auto", "inline", "thread", "process"),
    )] = "auto"  # fmt: skip
    device: Annotated[str, Key(
        "Device to load each copy on: `cpu`, `cuda:0` …; a list spreads one copy over several, where its runtime "
        "can.", forms.DEVICES,
    )] = "cpu"  # fmt: skip
    interpreter: Annotated[str, Key("Python interpreter of its processes; this one where left out.")] = ""
    adapter: Annotated[dict[str, Any] | None, Key("Bridge from the task's tensors to its own.")] = None
    options: Annotated[dict[str, Any], Key("Options of the runtime.")] = {}
    sees: Annotated[tuple[str, ...], Key(
        "Classes of data it may see; all for a local model, `public` behind a url.",
        words("public", "internal", "site"),
    )] = ()  # fmt: skip
    key: Annotated[str, Key("API key for the url, best taken from the environment.", forms.SECRET)] = ""
    cost: Annotated[CostSettings, Key("What it charges; a local model costs its device's time.")] = (
        CostSettings()
    )
    quality: Annotated[float | None, Key("Quality in the task's metric, of all variants.", forms.SHARE)] = (
        None
    )
    max_batch: Annotated[int, Key("Most rows in one batch; 1 = never batched.", forms.COUNT)] = 64
    context: Annotated[int, Key("Most prompt plus output tokens; 0 = no limit.", forms.COUNT_OR_NONE)] = 0
    capabilities: Annotated[tuple[str, ...], Key(
        "What a chat model can do; `completion`: go on with a prompt as it stands, with OpenAI's fields for that.",
        words("tools", "vision", "schema", "audio", "completion"),
    )] = ()  # fmt: skip
    stream: Annotated[StreamSettings, Key("First guess of a chat model's speed.")] = StreamSettings()


class BudgetSettings(_Settings, frozen=True, kw_only=True):
    """How much may be spent in a window of time."""

    spend: Annotated[float, Key("US dollars.", forms.DOLLARS)]
    per: Annotated[
        float, Key("Length of the window; the first begins with the first request.", forms.DURATION)
    ]


class BudgetsSettings(_Settings, frozen=True, kw_only=True):
    """What may be spent; what runs has reserved the most it can cost, so that no limit is passed."""

    fleet: Annotated[BudgetSettings | None, Key("By all requests together.")] = None
    tasks: Annotated[dict[str, BudgetSettings], Key("By the requests of a task.")] = {}
    tenants: Annotated[dict[str, BudgetSettings], Key("By the requests of a tenant.")] = {}
    each_tenant: Annotated[BudgetSettings | None, Key("By those of each tenant that is not named.")] = None


class ExplainSettings(_Settings, frozen=True, kw_only=True):
    """How many decisions are kept to be explained."""

    ring: Annotated[int, Key("Requests whose decisions are kept.", forms.COUNT)] = 4096


class FleetSettings(_Settings, frozen=True, kw_only=True):
    """The whole file."""

    tasks: Annotated[dict[str, TaskSettings], Key("What clients ask for.")]
    models: Annotated[dict[str, ModelSettings], Key("What serves the tasks.")]
    devices: Annotated[dict[str, DeviceSettings], Key("Devices and their prices.")] = {}
    aliases: Annotated[dict[str, str], Key("Other names for a model or a task.")] = {}
    server: Annotated[ServerSettings, Key("Where it listens and whom it serves.")] = ServerSettings()
    journal: Annotated[
        str,
        Key("File of the journal for `semaforo replay`, with that of the last run beside it, as `.1`."),
    ] = ""
    auto: Annotated[
        str,
        Key("File that `semaforo router tasks` wrote: it tells tasks apart for requests that name `auto`."),
    ] = ""
    budgets: Annotated[BudgetsSettings, Key("What may be spent.")] = BudgetsSettings()
    history: Annotated[
        str,
        Key("Database of answers and of what feedback has taught, kept over restarts; none where left out."),
    ] = ""
    explain: Annotated[ExplainSettings, Key("How many decisions are kept.")] = ExplainSettings()
    deferred: Annotated[DeferredSettings | None, Key(
        "The queue on disk for work that is answered later; none where left out.",
    )] = None  # fmt: skip
