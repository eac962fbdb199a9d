"""What counts as code in a configuration: the shapes of Keras 2 and every way around."""

from __future__ import annotations

from typing import Any

import pytest

from edgemed.convert.judge import code_in, is_pure_function
from edgemed.convert.known import CODE_CLASSES, KERAS2_CLASSES
from edgemed.convert.savedmodel import forbidden_operation

BYTECODE = "4wEAAAAAAAAAAAAAAAIAAAATAAAA8wwAAACXAHwAZAF6BQAAUwCpAk7n\n"
LAMBDA = {"class_name": "Lambda", "config": {"name": "evil", "function": [BYTECODE, None, None]}}


def dense(**config: Any) -> dict[str, Any]:
    return {"class_name": "Dense", "config": {"name": "dense", "units": 2, **config}}


def wrapped(kind: str, key: str, inner: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": "outer", key: inner}}


UNSAFE = {
    "lambda": LAMBDA,
    "bidirectional": wrapped("Bidirectional", "layer", LAMBDA),
    "time distributed": wrapped("TimeDistributed", "layer", LAMBDA),
    "list of layers, as Keras before 2.2.3": {"class_name": "Sequential", "config": [dense(), LAMBDA]},
    "cell": wrapped("RNN", "cell", {"class_name": "ResidualWrapper", "config": {"residual_function": "x"}}),
    "activation": dense(activation=[BYTECODE, None, None]),
    "activation with closure": dense(activation=[BYTECODE, [1.0], [2]]),
    "initializer": dense(kernel_initializer={"class_name": "__lambda__", "config": {"value": [BYTECODE, None, None]}}),
    "regularizer": dense(kernel_regularizer={"class_name": "Mine", "config": {}}),
    "constraint": dense(bias_constraint={"class_name": "clinic>NonNeg", "config": {}}),
    "function of the user": dense(activation={"class_name": "function", "module": "clinic", "config": "f"}),
    "function of Python": dense(activation={"class_name": "function", "module": "builtins", "config": "eval"}),
    "name that hides another": {**dense(), "module": "keras.utils", "registered_name": "get_file"},
    "module that hides another": {**dense(), "module": "subprocess"},
    "type of another module": {"class_name": "__typespec__", "module": "os", "spec_name": "TensorSpec", "config": []},
    "vocabulary": {"class_name": "StringLookup", "config": {"name": "look", "vocabulary": "/etc/passwd"}},
    "tf function": {"class_name": "TFOpLambda", "config": {"name": "x", "function": "io.gfile.remove"}},
    "tf function without name": {"class_name": "TFOpLambda", "config": {"name": "x"}},
    "slicing": {"class_name": "SlicingOpLambda", "config": {"name": "x", "function": "numpy_function"}},
    "class method": {"class_name": "ClassMethod", "config": {"cls_symbol": "data.Dataset", "method_name": "from_x"}},
    "property": {"class_name": "InstanceProperty", "config": {"attr_name": "graph"}},
    "method": {"class_name": "InstanceMethod", "config": {"attr_name": "__reduce__"}},
    "node": {"class_name": "TensorFlowOpLayer", "config": {"node_def": '{"op": "WriteFile"}'}},
    "unreadable node": {"class_name": "TensorFlowOpLayer", "config": {"node_def": "{"}},
}


@pytest.mark.parametrize("case", UNSAFE)
def test_refused(case: str) -> None:
    model = {
        "class_name": "Functional",
        "config": {"layers": [dense(), {"class_name": "Model", "config": UNSAFE[case]}]},
    }
    assert len(list(code_in(model))) == 1


SAFE = {
    "tf function": {"class_name": "TFOpLambda", "config": {"name": "x", "function": "math.truediv"}},
    "slice": {"class_name": "SlicingOpLambda", "config": {"name": "x", "function": "__operators__.getitem"}},
    "policy": dense(
        dtype={"class_name": "Policy", "module": "keras.mixed_precision", "config": {"name": "mixed_float16"}}
    ),
    "initializer": dense(
        kernel_initializer={"class_name": "Zeros", "module": "keras.initializers", "registered_name": None}
    ),
    "function": dense(activation={"class_name": "function", "module": "builtins", "config": "relu"}),
    "node": {"class_name": "TensorFlowOpLayer", "config": {"node_def": '{"op": "Mul"}'}},
    "words": {"class_name": "StringLookup", "config": {"vocabulary": ["a", "b"]}},
    "three numbers": dense(strides=[1, 1, 1]),
    "call": {"inbound_nodes": [["image", 0, 0, {"y": ["tokens", 0, 0], "name": None}]]},
}


@pytest.mark.parametrize("case", SAFE)
def test_accepted(case: str) -> None:
    assert list(code_in(SAFE[case])) == []


IMPURE = """
    io.write_file io.read_file io.gfile.rmtree raw_ops.WriteFile numpy_function py_function load_library
    load_op_library saved_model.load compat.v1.py_func nn.fixed_unigram_candidate_sampler linalg.LinearOperator
    nn.RNNCellResidualWrapper keras.backend.set_floatx keras.utils.get_file keras.models.load_model print
    debugging.experimental.enable_dump_debug_info summary.create_file_writer import_graph_def
""".split()  # noqa: SIM905 - read as words


def test_functions_of_tensorflow() -> None:
    for name in ("cast", "math.add", "compat.v1.nn.relu", "image.resize", "keras.backend.mean", "__operators__.add"):
        assert is_pure_function(name), name
    for name in (*IMPURE, "", None, 3, ["cast"]):
        assert not is_pure_function(name), name


def test_pure_functions_of_the_installed_tensorflow(facts: dict[str, Any]) -> None:
    """Nothing that touches files, modules or threads may come under a module that is allowed as a whole."""
    allowed = [name for name in facts["functions"] if is_pure_function(name)]
    assert len(allowed) > 500
    words = ("file", "load", "save", "import", "export", "py_func", "numpy", "write", "read", "dump", "summary", "rpc")
    assert [name for name in allowed if set(words) & set(name.rpartition(".")[2].split("_"))] == []


def test_classes_are_those_of_tf_keras(facts: dict[str, Any]) -> None:
    """Whatever tf_keras has more than Keras 3 is either listed, or refused on purpose."""
    left_out = {"AbstractRNNCell", "DenseFeatures", "PreprocessingLayer", *CODE_CLASSES}
    missing = set(facts["keras2"]) - set(facts["classes"]) - KERAS2_CLASSES
    assert missing <= left_out
    assert not KERAS2_CLASSES & (set(CODE_CLASSES) | {"ResidualWrapper", "DropoutWrapper", "LinearModel"})


REVIEWED = """
    Random Uniform Normal Binomial Poisson Gamma Multinomial NonDeterministicInts Rng Stateless Resource
    Variable Assign Lookup Table TensorArray Stack Map Stage Cudnn BoostedTrees PartitionedCall While Arg Retval
    CandidateSampler SparseToTensorsMap SparseFromTensorsMap Assert CheckNumerics SampleDistorted Accumulator
    MemoryCache SeedGenerator ScopedAllocator ThreadPool IterId IterationCounter StatsAggregator Xla Minibatch
    Empty Timestamp DeepCopy NegTrain AllToAll CrossReplicaSum Device Dedup CooTensor GlobalCoreArray
    TensorFloat32 GuaranteeConst GraphDefVersion RequiresOlder DtypeWithDefault TestAttr ParallelConcat
    CopyOnRead VarHandle VarIsInitialized
""".split()  # noqa: SIM905 - read as words
REVIEWED_NAMES = ("Case", "If", "Print", "Unstage", "_If")


def test_stateful_operations_were_reviewed(facts: dict[str, Any]) -> None:
    """An operation that a new TensorFlow adds is looked at before it may pass."""
    passing = [name for name in facts["stateful"] if not forbidden_operation(name) and name not in REVIEWED_NAMES]
    assert [name for name in passing if not any(word in name for word in REVIEWED)] == []


NEVER_RUN = """
    WriteFile ReadFile MatchingFiles PyFunc PyFuncStateless EagerPyFunc PrintV2 SaveV2 RestoreV2 DistributedSave
    DTensorRestoreV2 LoadAndRemapMatrix GenerateVocabRemapping FixedUnigramCandidateSampler Skipgram RecordInput
    DecodeProtoV2 EncodeProto InitializeTableFromTextFileV2 TFRecordReaderV2 LMDBReader TextLineDataset
    ImportEvent CalibrationStatisticsSaver RpcCall RemoteCall _Send _HostRecv XlaHostCompute _XlaSendFromHost
    CollectiveReduceV3 NcclAllReduce QueueDequeueV2 Barrier MutexLock DebugIdentityV3 ConfigureDistributedTPU
    GetSessionTensor Save
""".split()  # noqa: SIM905 - read as words


@pytest.mark.parametrize("name", NEVER_RUN)
def test_operations_that_are_never_run(name: str) -> None:
    assert forbidden_operation(name)


def test_operations_of_models_are_allowed() -> None:
    for name in (
        "Conv2D",
        "MatMul",
        "StatefulPartitionedCall",
        "ReadVariableOp",
        "While",
        "ResizeBilinear",
        "FusedBatchNormV3",
    ):
        assert not forbidden_operation(name)


_SCALE = "convnext_tiny_stage_0_block_1_layer_scale"
_SOURCE = "src.applications.convnext"


@pytest.mark.parametrize(
    "config",
    [
        {"class_name": "LayerScale", "config": {"name": _SCALE}},
        {"class_name": "LayerScale", "module": f"keras.{_SOURCE}", "registered_name": "LayerScale", "config": {}},
        {"class_name": "StochasticDepth", "module": f"tf_keras.{_SOURCE}", "config": {}},
        {"class_name": "CustomScaleLayer", "config": {"name": "custom_scale_layer_3"}},
    ],
)
def test_layers_of_the_applications_are_keras_own(config: dict[str, Any]) -> None:
    assert list(code_in({"layers": [config]})) == []


@pytest.mark.parametrize(
    "config",
    [
        {"class_name": "LayerScale", "config": {"name": "scale"}},  # the user's own, of the same name
        {"class_name": "LayerScale", "module": None, "registered_name": "LayerScale", "config": {"name": _SCALE}},
        {"class_name": "LayerScale", "module": "keras.src.layers", "config": {"name": _SCALE}},
        {"class_name": "LayerScale", "module": f"mine.{_SOURCE}", "config": {"name": _SCALE}},
        {"class_name": "CustomScaleLayer", "config": {"name": "mine"}},
        {"class_name": "LayerScale", "config": None},
    ],
)
def test_layers_that_only_share_their_name_are_custom(config: dict[str, Any]) -> None:
    (phrase,) = code_in({"layers": [config]})
    assert f"the custom class {config['class_name']}" in phrase
