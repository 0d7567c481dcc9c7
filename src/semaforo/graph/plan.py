"""What is the same for every run of a graph: which steps wait for which, and which are escalations."""

from __future__ import annotations

from semaforo.graph.graph import Graph, Step, in_order


class Plan:
    """What is the same for every run of a graph.

    Args:
        graph: The graph, free of circles.

    Attributes:
        steps: By name, in an order in which each comes after what it waits for.
        before: Step → steps that end before it begins.
        after: Step → steps that wait for it.
        wanted: Steps that the answer and what is remembered are taken from.
        escalations: Steps with conditions, and what follows from them alone, without which there is an answer.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps: dict[str, Step] = {step.name: step for step in in_order(graph)}
        self.before = {name: step.before() for name, step in self.steps.items()}
        self.needs = {name: step.needs() for name, step in self.steps.items()}
        self.after: dict[str, list[str]] = {name: [] for name in self.steps}
        for name, earlier in self.before.items():
            for other in earlier:
                self.after[other].append(name)
        self.wanted = graph.wanted()
        self.first = [name for name, earlier in self.before.items() if not earlier]
        self.escalations = self._escalations()

    def _escalations(self) -> frozenset[str]:
        depends: set[str] = set()
        for name, step in self.steps.items():
            if step.when or any(need in depends for need in self.needs[name]):
                depends.add(name)
        found: set[str] = set()
        for name in reversed(self.steps):
            later = self.after[name]
            if name not in depends or name in self.wanted or not later:
                continue
            if all(after in found or self._goes_on(after, name, depends) for after in later):
                found.add(name)
        return frozenset(found)

    def _goes_on(self, fusion: str, member: str, depends: set[str]) -> bool:
        """Tell whether a fusion has enough members that run in any case."""
        step = self.steps[fusion]
        if step.kind != "fuse" or member not in step.of:
            return False
        return sum(one not in depends for one in step.of) >= max(1, step.least)
