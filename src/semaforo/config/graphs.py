"""Settings of a graph: its steps, and what of them is the answer."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from semaforo.config import forms
from semaforo.config.forms import Key, word
from semaforo.config.tensor import TensorSettings

STEP_KEYS: dict[str, tuple[str, ...]] = {
    "ask": (
        "inputs",
        "each",
        "at_once",
        "samples",
        "prompt",
        "variant",
        "version",
        "min_quality",
        "max_cost",
    ),
    "call": ("inputs", "outputs"),
    "fuse": ("of", "wait", "least", "quorum", "feedback", "weights", "fitted", "options"),
    "loop": ("inputs", "carry", "until", "most", "variant", "version", "min_quality", "max_cost"),
    "verify": ("by", "against", "sha256", "inputs"),
}
"""What a step does → the keys that go with it, beside `when`, `after` and `delay`."""


class StepSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One step: exactly one of `ask`, `call`, `fuse`, `loop` and `verify` says what it does."""

    SHORT: ClassVar[str] = "ask"

    ask: Annotated[str, Key("Task, model, alias or other graph that is asked.")] = ""
    call: Annotated[str, Key(
        "`module:function` or `file.py:function` that is called with its inputs.", forms.IMPORT,
    )] = ""  # fmt: skip
    fuse: Annotated[str, Key("Method by which the answers of `of` become one.")] = ""
    loop: Annotated[str, Key("Task or model that is asked again and again.")] = ""
    verify: Annotated[str, Key(
        "Step (or its output) whose answer a trained verifier looks at; gives `gain` and `trust`.",
    )] = ""  # fmt: skip
    by: Annotated[
        str, Key("File of the verifier, or a folder of its versions, seen from the fleet file.")
    ] = ""
    against: Annotated[str, Key(
        "Model whose gain it predicts, as in the table it was trained on; the only other one where left out.",
    )] = ""  # fmt: skip
    sha256: Annotated[str, Key("Digest that the file must have.")] = ""
    inputs: Annotated[dict[str, str], Key(
        "Input → `step.output`, `input.name` or `session.name`; the graph's input of the same name where left out.",
    )] = {}  # fmt: skip
    of: Annotated[tuple[str, ...], Key("Steps whose answers are fused.")] = ()
    when: Annotated[str, Key(
        "Condition on the rows it runs for, e.g. `max(quick.scores) < 0.9`; all rows where left out.",
    )] = ""  # fmt: skip
    after: Annotated[tuple[str, ...], Key("Steps that must have ended before.")] = ()
    each: Annotated[tuple[str, ...], Key("Inputs that are lists in each row: it runs for every item.")] = ()
    at_once: Annotated[int, Key("Most items of `each` in flight.", forms.COUNT)] = 64
    delay: Annotated[float, Key("How long to hold it back; never begun if not needed by then.",
                                forms.DURATION)] = 0.0  # fmt: skip
    wait: Annotated[float | None, Key(
        "How long a fusion waits for the rest after its first answer; as the deadline allows where left out.",
        forms.DURATION,
    )] = None  # fmt: skip
    least: Annotated[int, Key("Members that a fusion cannot do without.", forms.COUNT)] = 1
    quorum: Annotated[int, Key(
        "A fusion ends, and the others are cancelled, once so many agree; 0 = never early.",
        forms.COUNT_OR_NONE,
    )] = 0  # fmt: skip
    feedback: Annotated[float, Key(
        "Learn of each of three members or more whether it was with the fused answer, as this part of a feedback; "
        "0 = no.", forms.SHARE,
    )] = 0.0  # fmt: skip
    weights: Annotated[dict[str, Any], Key(
        "Weight of each member; where left out, as its quality and its history say.",
    )] = {}  # fmt: skip
    fitted: Annotated[
        str, Key("JSON file of what was fitted on labelled rows, seen from the fleet file.")
    ] = ""
    carry: Annotated[dict[str, str], Key("Of a loop: input → output that it becomes in the next round.")] = {}
    until: Annotated[str, Key("Of a loop: condition on a round's outputs, after which a row is done.")] = ""
    most: Annotated[int, Key("Of a loop: most rounds.", forms.COUNT)] = 8
    samples: Annotated[int, Key(
        "How often a chat is asked the same; its `text` is what most say, `agreement` their share.", forms.COUNT,
    )] = 1  # fmt: skip
    prompt: Annotated[str, Key("Of a chat: its message, with references in braces.")] = ""
    outputs: Annotated[dict[str, TensorSettings], Key("What a called function gives.")] = {}
    variant: Annotated[str, Key("Variant to ask; the router's choice where left out.")] = ""
    version: Annotated[str, Key("Version to ask; the one in service where left out.")] = ""
    min_quality: Annotated[float, Key("Least quality of what is asked.", forms.SHARE)] = 0.0
    max_cost: Annotated[float | None, Key("Most the step may cost.", forms.DOLLARS)] = None
    options: Annotated[dict[str, Any], Key("Options of the method of a fusion.")] = {}


class GraphSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A model made of other models."""

    steps: Annotated[dict[str, StepSettings], Key("Its steps by name, in any order.")]
    answer: Annotated[dict[str, str], Key(
        "Output of the task → `step.output`; where left out, the last step gives all of them.",
    )] = {}  # fmt: skip
    session: Annotated[dict[str, TensorSettings], Key(
        "What a session remembers from one request to the next; zeros, or empty texts, at first.",
    )] = {}  # fmt: skip
    remember: Annotated[dict[str, str], Key("Name in the session → `step.output` that it becomes.")] = {}
    stream: Annotated[str, Key(
        "Where several steps may give a chat's text: `hold` the stream back until it is known who answers, or "
        "send the first answer at once and `restart` with a marker if another one takes its place.",
        word("hold", "restart"),
    )] = "hold"  # fmt: skip
    forget: Annotated[float, Key("How long a session that is not used is remembered.", forms.DURATION)] = (
        600.0
    )
    in_flight: Annotated[int, Key("Requests of the graph that run at once; more of them wait.",
                                  forms.COUNT)] = 256  # fmt: skip
