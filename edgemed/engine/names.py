"""Every TensorRT name this room uses, and in which versions it exists.

The conformance test holds each row against the real bindings, and the room's source against this table: a name that
is not here must not be used, and a name outside its span must not exist, since `Bridge.has` decides by existence.
"""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """Where a name exists: TensorRT versions `since` ≤ v < `before` (8.6 to 11), and TensorRT-RTX."""

    since: Version = (8, 6)
    before: Version = (12,)
    tensorrt: bool = True
    rtx: bool = True

    def covers(self, flavour: str, version: Version) -> bool:
        """Whether the name must exist in this version of this flavour."""
        if flavour == "tensorrt_rtx":
            return self.rtx
        return self.tensorrt and self.since <= version < self.before


ALWAYS = Span()
WEAKLY_TYPED = Span(before=(11,), rtx=False)
SINCE_10 = Span(since=(9, 3))
RTX_ONLY = Span(tensorrt=False)
UNTIL_11 = Span(before=(11,), rtx=False)

NAMES: dict[str, Span] = {
    "Builder": ALWAYS,
    "Builder.build_serialized_network": ALWAYS,
    "Builder.create_builder_config": ALWAYS,
    "Builder.create_network": ALWAYS,
    "Builder.create_optimization_profile": ALWAYS,
    "Builder.num_DLA_cores": ALWAYS,
    "BuilderFlag.FP16": WEAKLY_TYPED,
    "BuilderFlag.GPU_FALLBACK": ALWAYS,
    "BuilderFlag.INT8": WEAKLY_TYPED,
    "BuilderFlag.TF32": ALWAYS,
    "ComputeCapability": RTX_ONLY,
    "ComputeCapability.__members__": RTX_ONLY,
    "DeviceType.DLA": ALWAYS,
    "ErrorCodeTRT": ALWAYS,
    "ErrorCodeTRT.UNSPECIFIED_ERROR": ALWAYS,
    "ErrorCodeTRT.__members__": ALWAYS,
    "IBuilderConfig.DLA_core": ALWAYS,
    "IBuilderConfig.add_optimization_profile": ALWAYS,
    "IBuilderConfig.builder_optimization_level": ALWAYS,
    "IBuilderConfig.clear_flag": ALWAYS,
    "IBuilderConfig.create_timing_cache": ALWAYS,
    "IBuilderConfig.default_device_type": ALWAYS,
    "IBuilderConfig.num_compute_capabilities": RTX_ONLY,
    "IBuilderConfig.progress_monitor": SINCE_10,
    "IBuilderConfig.set_compute_capability": RTX_ONLY,
    "IBuilderConfig.set_flag": ALWAYS,
    "IBuilderConfig.set_memory_pool_limit": ALWAYS,
    "IBuilderConfig.set_preview_feature": ALWAYS,
    "IBuilderConfig.set_timing_cache": ALWAYS,
    "ICudaEngine.create_execution_context": ALWAYS,
    "ICudaEngine.error_recorder": ALWAYS,
    "ICudaEngine.get_tensor_dtype": ALWAYS,
    "ICudaEngine.get_tensor_format": ALWAYS,
    "ICudaEngine.get_tensor_location": ALWAYS,
    "ICudaEngine.get_tensor_mode": ALWAYS,
    "ICudaEngine.get_tensor_name": ALWAYS,
    "ICudaEngine.get_tensor_profile_shape": ALWAYS,
    "ICudaEngine.get_tensor_shape": ALWAYS,
    "ICudaEngine.num_aux_streams": ALWAYS,
    "ICudaEngine.num_io_tensors": ALWAYS,
    "ICudaEngine.num_optimization_profiles": ALWAYS,
    "IErrorRecorder": ALWAYS,
    "IErrorRecorder.__init__": ALWAYS,
    "IErrorRecorder.clear": ALWAYS,
    "IErrorRecorder.get_error_code": ALWAYS,
    "IErrorRecorder.get_error_desc": ALWAYS,
    "IErrorRecorder.has_overflowed": ALWAYS,
    "IErrorRecorder.num_errors": ALWAYS,
    "IErrorRecorder.report_error": ALWAYS,
    "IExecutionContext.active_optimization_profile": ALWAYS,
    "IExecutionContext.error_recorder": ALWAYS,
    "IExecutionContext.execute_async_v3": ALWAYS,
    "IExecutionContext.get_tensor_shape": ALWAYS,
    "IExecutionContext.infer_shapes": ALWAYS,
    "IExecutionContext.is_stream_capturable": RTX_ONLY,
    "IExecutionContext.set_aux_streams": ALWAYS,
    "IExecutionContext.set_input_consumed_event": ALWAYS,
    "IExecutionContext.set_input_shape": ALWAYS,
    "IExecutionContext.set_optimization_profile_async": ALWAYS,
    "IExecutionContext.set_output_allocator": ALWAYS,
    "IExecutionContext.set_tensor_address": ALWAYS,
    "ILogger": ALWAYS,
    "ILogger.__init__": ALWAYS,
    "ILogger.log": ALWAYS,
    "INetworkDefinition.get_input": ALWAYS,
    "INetworkDefinition.get_output": ALWAYS,
    "INetworkDefinition.num_inputs": ALWAYS,
    "INetworkDefinition.num_layers": ALWAYS,
    "INetworkDefinition.num_outputs": ALWAYS,
    "IOptimizationProfile.set_shape": ALWAYS,
    "IOutputAllocator": ALWAYS,
    "IOutputAllocator.__init__": ALWAYS,
    "IProgressMonitor": SINCE_10,
    "IProgressMonitor.__init__": SINCE_10,
    "IProgressMonitor.phase_finish": SINCE_10,
    "IProgressMonitor.phase_start": SINCE_10,
    "IProgressMonitor.step_complete": SINCE_10,
    "ITensor.dtype": ALWAYS,
    "ITensor.name": ALWAYS,
    "ITensor.shape": ALWAYS,
    "ITimingCache.serialize": ALWAYS,
    "MemoryPoolType.WORKSPACE": ALWAYS,
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": WEAKLY_TYPED,
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": SINCE_10,
    "OnnxParser": ALWAYS,
    "OnnxParser.get_error": ALWAYS,
    "OnnxParser.num_errors": ALWAYS,
    "OnnxParser.parse": ALWAYS,
    "OnnxParser.parse_from_file": ALWAYS,
    "ParserError.desc": ALWAYS,
    "ParserError.node": ALWAYS,
    "ParserError.node_name": SINCE_10,
    "ParserError.node_operator": SINCE_10,
    "PreviewFeature.PROFILE_SHARING_0806": UNTIL_11,
    "Runtime": ALWAYS,
    "Runtime.DLA_core": ALWAYS,
    "Runtime.deserialize_cuda_engine": ALWAYS,
    "Runtime.engine_host_code_allowed": ALWAYS,
    "Runtime.error_recorder": ALWAYS,
    "Runtime.get_engine_validity": RTX_ONLY,
    "Runtime.num_DLA_cores": ALWAYS,
    "TensorFormat": ALWAYS,
    "TensorFormat.LINEAR": ALWAYS,
    "TensorIOMode": ALWAYS,
    "TensorIOMode.INPUT": ALWAYS,
    "TensorLocation": ALWAYS,
    "TensorLocation.HOST": ALWAYS,
    "__version__": ALWAYS,
}
