"""What a pass is, and how passes run in order.

The contract follows onnx-ir and Executorch: `requires` checks what must hold before, `call` rewrites, `ensures` checks
what holds after. A pass that finds nothing to do says `modified=False` and leaves the graph as it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from edgemed.base.errors import EdgemedError

if TYPE_CHECKING:
    import onnx_ir as ir


class PassError(EdgemedError):
    """A pass broke its own contract: a bug of ours (exit code 70), never the user's."""


@dataclass(frozen=True)
class PassResult:
    """The graph after a pass, and whether the pass changed it."""

    model: ir.Model
    modified: bool


class GraphPass(ABC):
    """One rewrite of a graph. It may work in place; use the model it returns."""

    name: ClassVar[str]

    def requires(self, model: ir.Model) -> None:  # noqa: B027  (most passes accept every graph)
        """Raise unless the pass can run on `model`.

        Raises:
            InputError: the user's model is the reason.
        """

    @abstractmethod
    def call(self, model: ir.Model) -> PassResult:
        """Rewrite `model`."""

    def ensures(self, model: ir.Model) -> None:  # noqa: B027
        """Raise `PassError` unless `model` is what the pass promises."""

    def __call__(self, model: ir.Model) -> PassResult:
        """Check, rewrite, check."""
        self.requires(model)
        result = self.call(model)
        self.ensures(result.model)
        return result


@dataclass(frozen=True)
class PassChange:
    """What one pass did, for the report."""

    name: str
    modified: bool
    nodes_before: int
    nodes_after: int


@dataclass(frozen=True)
class PassesResult:
    """The graph after all passes, and what each did, in the order they ran."""

    model: ir.Model
    changes: tuple[PassChange, ...]

    @property
    def modified(self) -> bool:
        return any(change.modified for change in self.changes)


def run_passes(model: ir.Model, passes: Iterable[GraphPass]) -> PassesResult:
    """Run passes in order.

    Raises:
        InputError: a pass cannot work on this model, and says why.
        PassError: a pass failed; the message names it and the passes before it, the cause is chained.
    """
    changes: list[PassChange] = []
    for graph_pass in passes:
        before = count_nodes(model)
        try:
            result = graph_pass(model)
        except EdgemedError as error:
            if not isinstance(error, PassError):
                raise
            raise _failure(graph_pass, changes, error) from error
        except Exception as error:
            raise _failure(graph_pass, changes, error) from error
        model = result.model
        changes.append(PassChange(graph_pass.name, result.modified, before, count_nodes(model)))
    return PassesResult(model, tuple(changes))


def _failure(graph_pass: GraphPass, done: Sequence[PassChange], error: Exception) -> PassError:
    after = f" after {', '.join(change.name for change in done)}" if done else ""
    what = f"The graph pass '{graph_pass.name}' failed{after}: {str(error).rstrip('.') or type(error).__name__}."
    return PassError(what, "Please report this with the model, if you may share it.")


def count_nodes(model: ir.Model) -> int:
    """Count the nodes of the graph, subgraphs included."""
    return sum(len(graph) for graph in model.graphs())
