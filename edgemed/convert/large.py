"""The route of large models: their weights never enter a TensorFlow or an ONNX graph.

Frozen as usual, a model of 553 MB took 10 GB: TensorFlow and tf2onnx copy constants at every step. Here the large
weights go through the conversion as inputs of the graph, without values; afterwards they become initializers
whose values are written straight from the variables into one file of external data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemed.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

_LARGE_WEIGHT = 64 * 2**10  # smaller ones stay constants, which tf2onnx folds
_ALIGNMENT = 4096
_MAX_BYTES = int(1.9 * 2**30)  # protobuf refuses a message of 2 GiB; graph and names need a part of it

# operations that tf2onnx converts as well when their weights are no constants
_CONSUMERS = frozenset(
    {"BatchMatMulV2", "Conv2D", "Conv2DBackpropInput", "Conv3D", "Conv3DBackpropInputV2", "Einsum", "MatMul"}
)
_PREFIX = "edgemed_weight_"


def freeze_apart(concrete: Any) -> tuple[Any, dict[str, str], dict[str, Any]]:
    """Freeze a concrete function but for its large weights, which become placeholders.

    Returns:
        The GraphDef, the wanted ONNX name by TensorFlow tensor name of each placeholder, and the variable by ONNX name.

    Raises:
        InputError: the weights that must stay constants do not fit into one graph.
    """
    from tensorflow.python.framework import convert_to_constants as frozen

    inlined = frozen._run_inline_graph_optimization(concrete, False, False)  # type: ignore[no-untyped-call, unused-ignore]
    users = _users(inlined)
    apart = {name: variable for name, variable in _large_captures(concrete) if _path(users, name)[0]}
    _check_rest(concrete, apart)
    graph_def = constants_for_variables(concrete, apart)
    users = _users(graph_def)
    names: dict[str, str] = {}
    variables: dict[str, Any] = {}
    gone = set(apart)
    for placeholder, variable in apart.items():
        reads, passing = _path(users, placeholder)
        gone |= {node.name for node in passing}
        for read in reads:
            name = f"{_PREFIX}{len(names)}"
            names[f"{read.name}:0"], variables[name] = name, variable
            _make_placeholder(read, variable)
    _remove(graph_def, gone)
    return graph_def, names, variables


def constants_for_variables(concrete: Any, but: Collection[str] = ()) -> Any:
    """The GraphDef of a function with constants for its variables, but for some by the name of their placeholder.

    `convert_variables_to_constants_v2` would make a function of it again, a third of the time, only to be asked for
    its GraphDef. Control flow stays functional: tf2onnx recognises recurrent layers by their While nodes.
    """
    from tensorflow.python.framework import convert_to_constants as frozen

    data = frozen._FunctionConverterDataInEager(  # type: ignore[no-untyped-call, unused-ignore]
        func=concrete, lower_control_flow=False, aggressive_inlining=False, variable_names_denylist=set(but)
    )
    graph_def, _ = frozen._replace_variables_by_constants(data)  # type: ignore[no-untyped-call, unused-ignore]
    return graph_def


def _large_captures(concrete: Any) -> Iterator[tuple[str, Any]]:
    variables = {id(variable.handle): variable for variable in concrete.graph.variables}
    for value, placeholder in concrete.graph.captures:
        variable = variables.get(id(value))
        if variable is not None and variable.dtype.name == "float32" and _nbytes(variable) >= _LARGE_WEIGHT:
            yield placeholder.name.partition(":")[0], variable


def _nbytes(variable: Any) -> int:
    return int(variable.shape.num_elements() * variable.dtype.size)


def _check_rest(concrete: Any, apart: dict[str, Any]) -> None:
    rest = sum(map(_nbytes, concrete.graph.variables)) - sum(map(_nbytes, apart.values()))
    if rest > _MAX_BYTES:
        raise InputError(
            f"The model has {rest / 2**30:.1f} GiB of weights that must be constants of its graph.",
            "Layers other than convolutions and Dense (an Embedding, an RNN) must stay below 1.9 GiB together.",
        )


def _users(graph_def: Any) -> dict[str, list[Any]]:
    users: dict[str, list[Any]] = {}
    for node in graph_def.node:
        for name in node.input:
            if not name.startswith("^"):  # an order of execution, no use of the value
                users.setdefault(name.partition(":")[0], []).append(node)
    return users


def _path(users: dict[str, list[Any]], placeholder: str) -> tuple[list[Any], list[Any]]:
    """The nodes that read a variable, and those that only pass its handle on (an inlined call's parameters).

    Both are empty where the variable also goes elsewhere, or its value to an operation that needs a constant.
    """
    reads: list[Any] = []
    passing: list[Any] = []
    waiting = [(node, False) for node in users.get(placeholder, [])]
    while waiting:
        node, is_value = waiting.pop()
        if node.op == "ReadVariableOp" and not is_value:
            reads.append(node)
        elif node.op == "Identity" and not is_value:
            passing.append(node)
        elif not (is_value and (node.op in _CONSUMERS or node.op == "Identity")):
            return [], []
        if node.op not in _CONSUMERS:
            after = is_value or node.op == "ReadVariableOp"
            waiting += [(user, after) for user in users.get(node.name, [])]
    return reads, passing


def _make_placeholder(read: Any, variable: Any) -> None:
    read.op = "Placeholder"
    del read.input[:]
    for key in [key for key in read.attr if key != "dtype"]:
        del read.attr[key]
    read.attr["shape"].shape.CopyFrom(variable.shape.as_proto())


def _remove(graph_def: Any, gone: set[str]) -> None:
    for node in [node for node in graph_def.node if node.name in gone]:
        graph_def.node.remove(node)
    for node in graph_def.node:
        kept = [name for name in node.input if not (name.startswith("^") and name[1:] in gone)]
        if len(kept) != len(node.input):
            node.input[:] = kept


# after the conversion


def data_path(path: Path) -> Path:
    """The file beside an ONNX file that holds its large weights."""
    return path.with_name(f"{path.name}.data")


def attach(model: onnx.ModelProto, variables: dict[str, Any], path: Path) -> None:
    """Make the weights initializers again, with their values in `path` + `.data`.

    What the conversion put between a weight and its consumer (a transposition to ONNX' layout) is done here.
    """
    graph = model.graph
    for value in [value for value in graph.input if value.name in variables]:
        graph.input.remove(value)
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    with data_path(path).open("wb") as file:
        for name, variable in variables.items():
            for final, array, folded in _folded(name, _array(variable), users, constants):
                for node in folded:
                    graph.node.remove(node)
                if final in users:
                    graph.initializer.append(_write(file, final, array))


def _array(variable: Any) -> NDArray[np.generic]:
    import numpy as np

    return np.asarray(variable.read_value())  # on the CPU this is a view of the variable's own memory


def _folded(
    name: str, array: Any, users: dict[str, list[Any]], constants: dict[str, Any]
) -> Iterator[tuple[str, Any, list[Any]]]:
    """Follow a weight through pure data movement: each name under which it is used, with its value there."""
    import numpy as np
    from onnx import numpy_helper

    movements = []
    for node in users.get(name, []):
        moved = None
        if node.op_type == "Transpose":
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            moved = np.transpose(array, perm)
        elif node.op_type == "Identity":
            moved = array
        elif node.op_type == "Reshape" and node.input[1] in constants:
            moved = array.reshape(numpy_helper.to_array(constants[node.input[1]]))
        if moved is not None:
            movements.append(node)
            yield from _folded(node.output[0], moved, users, constants)
    rest = [node for node in users.get(name, []) if node not in movements]
    users[name] = rest
    if not rest:
        del users[name]
    yield name, array, movements


def _write(file: Any, name: str, array: Any) -> onnx.TensorProto:
    import numpy as np
    import onnx

    offset = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT  # so that a reader can map it
    file.seek(offset)
    for part in array if array.ndim > 1 else [array]:
        np.ascontiguousarray(part).tofile(file)
    tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", Path(file.name).name), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
