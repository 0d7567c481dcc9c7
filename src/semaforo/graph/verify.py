"""What a verifier looks at: an answer, and the question that it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from semaforo.entities import TensorSpec
from semaforo.graph.graph import INPUT, Step, output_of, step_of

SAMPLED = (TensorSpec("agreement", "FP64"), TensorSpec("unlike", "FP64"))
"""What a chat that is asked several times gives beside its text: the share that agrees, and how many differ."""
VERDICT = (TensorSpec("gain", "FP64"), TensorSpec("trust", "FP64"))
"""What a verifier gives: the predicted gain of the dear model, -1…1, and how far it is in its domain, 0…1."""


def question_of(step: Step, inputs: Iterable[str]) -> dict[str, str]:
    """Return what a verifier knows of the question, name → reference: the graph's inputs if nothing is said."""
    if step.inputs:
        return step.inputs
    # A chat's text is the last of its messages.
    return {name: f"{INPUT}.{name}" for name in inputs if name != "messages"}


def answer_of(step: Step, given: Mapping[str, TensorSpec]) -> str:
    """Return the reference to the answer that a verifier looks at: a text, or scores of classes.

    Args:
        step: The verifier.
        given: What the step gives whose answer it is.

    Raises:
        ValueError: There is none, or more than one; the message says what to do.
    """
    name, output = step_of(step.verifies), output_of(step.verifies)
    if output in given:
        if not (is_scores(given[output]) or is_text(given[output])):
            raise ValueError(f"{given[output]} is neither a text nor scores of classes")
        return step.verifies
    for fits in (_is_said, is_scores, is_text):
        found = [spec.name for spec in given.values() if fits(spec)]
        if len(found) == 1 and not output:
            return f"{name}.{found[0]}"
    raise ValueError(
        f"name a text or scores of classes, such as {name}.{next(iter(given), 'text')}; "
        f"'{name}' gives {', '.join(given) or 'nothing'}"
    )


def is_scores(spec: TensorSpec) -> bool:
    """Tell whether a tensor scores classes in each row."""
    return spec.dtype in ("FP16", "FP32", "FP64") and len(spec.shape) == 1 and spec.shape[0] != 1


def is_text(spec: TensorSpec) -> bool:
    """Tell whether a tensor is one text in each row."""
    return spec.dtype == "BYTES" and all(d == 1 for d in spec.shape)


def _is_said(spec: TensorSpec) -> bool:
    return spec.name == "text" and is_text(spec)
