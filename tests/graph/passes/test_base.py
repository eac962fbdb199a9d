from __future__ import annotations

import numpy as np
import pytest

from edgemed.base.errors import EXIT_BUG, InputError
from edgemed.graph.passes import GraphPass, PassError, PassResult, run_passes
from edgemed.graph.passes.rewrite import add_initializer
from tests.graph.onnx_models import graph, node


class _Nothing(GraphPass):
    name = "nothing"

    def call(self, model):
        return PassResult(model, False)


class _DropLast(GraphPass):
    name = "drop-last"

    def call(self, model):
        last = model.graph[-1]
        last.outputs[0].replace_all_uses_with(last.inputs[0], replace_graph_outputs=True)
        model.graph.remove(last, safe=True)
        return PassResult(model, True)


class _Crash(GraphPass):
    name = "crash"

    def call(self, model):
        raise ZeroDivisionError("division by zero")


class _BrokenPromise(_Nothing):
    name = "broken-promise"

    def ensures(self, model):
        raise PassError("The graph still has a Relu.")


class _Refusal(_Nothing):
    name = "refusal"

    def requires(self, model):
        raise InputError("The model is too strange.", "Use another.")


def _model():
    return graph([node("Relu", "x", "y"), node("Neg", "y", "z")], {"x": (1, 2)}, {"z": (1, 2)})


def test_passes_run_in_order_and_say_what_they_changed() -> None:
    result = run_passes(_model(), [_Nothing(), _DropLast()])
    assert [n.op_type for n in result.model.graph] == ["Relu"]
    assert [(c.name, c.modified, c.nodes_before, c.nodes_after) for c in result.changes] == [
        ("nothing", False, 2, 2),
        ("drop-last", True, 2, 1),
    ]
    assert result.modified


@pytest.mark.parametrize("bad", [_Crash(), _BrokenPromise()])
def test_a_failing_pass_is_named_with_those_before_it_and_its_cause(bad: GraphPass) -> None:
    with pytest.raises(PassError, match=f"'{bad.name}' failed after nothing, drop-last: ") as caught:
        run_passes(_model(), [_Nothing(), _DropLast(), bad])
    assert isinstance(caught.value.__cause__, ZeroDivisionError | PassError)
    assert caught.value.exit_code == EXIT_BUG


def test_a_refusal_reaches_the_user_unchanged() -> None:
    with pytest.raises(InputError, match=r"^The model is too strange\. Use another\.$"):
        run_passes(_model(), [_Refusal()])


def test_names_of_new_initializers_count_on_without_end() -> None:
    model = graph([node("Relu", "x", "y")], {"x": (1, 2)}, {"y": (1, 2)}, {"w": np.zeros(2, np.float32)})
    names = [add_initializer(model.graph, "w", np.ones(2, np.float32)).name for _ in range(3)]
    assert names == ["w_1", "w_2", "w_3"]
