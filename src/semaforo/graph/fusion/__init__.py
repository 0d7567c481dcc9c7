"""How several answers become one. `METHODS` has every method by the name it has in a fleet file."""

from semaforo.graph.fusion.averages import Confident, Mean, Median, Product, Vote
from semaforo.graph.fusion.boxes import Boxes
from semaforo.graph.fusion.estimate import Estimate
from semaforo.graph.fusion.features import Concat, Gate
from semaforo.graph.fusion.first import First
from semaforo.graph.fusion.learned import Bayes, Stack
from semaforo.graph.fusion.method import Member, Method
from semaforo.graph.fusion.ranks import Ranks
from semaforo.graph.fusion.texts import Consensus

METHODS: dict[str, Method] = {
    "first": First(),
    "vote": Vote(),
    "mean": Mean(),
    "product": Product(),
    "median": Median(),
    "confident": Confident(),
    "stack": Stack(),
    "bayes": Bayes(),
    "ranks": Ranks(),
    "estimate": Estimate(),
    "boxes": Boxes(),
    "consensus": Consensus(),
    "concat": Concat(),
    "gate": Gate(),
}

__all__ = ["METHODS", "Member", "Method"]
