"""The latency profiler: a claim about a model on a device, with its evidence.

load       when frames are meant to arrive
clock      waiting until then
backend    what a bundle is measured on: an engine or ONNX Runtime, one frame at a time or a ring
measure    drives a Runner or a ring by that clock, and stamps every frame
stagelog   the device's stages of a frame, at next to no cost
stamps     where the stamps lie: one row per frame, in a file mapped into memory
beside     what goes on beside a measurement: telemetry, energy, interference
soak       ends a run once it is steady

binomial, compound, batches   exact bounds: of rare events, of events of unequal size, of what is not rare
stats      percentiles with rank, n and bound
misses     deadline misses, counted in events
steady     whether it was still changing
distill    stamps → figures

facts      what this machine and this process are
cost       what the profiler costs by itself
result     the schema of result.json
slo        service-level objectives; judge, verdict: what they come to
session    one run from plan to verdict
compare    two sets of results; interleave: fresh processes by turns
text       a result in lines; export: its samples for other programs
overview   a run as pictures need it; pictures, page, comparison, markdown: what people look at
trace      every frame as slices, for Perfetto
estimate   bounds from data sheets, before there is hardware
trtexec    reads what trtexec and TensorRT's inspector write; layers: an engine of it, and two compared
"""
