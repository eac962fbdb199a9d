"""The latency profiler: a claim about a model on a device, with its evidence.

load      when frames are meant to arrive
measure   drives a Runner or a ring by that clock, and stamps every frame
stamps    where the stamps lie: one row per frame, in a file mapped into memory
beside    what goes on beside a measurement: telemetry, interference
stats     percentiles with rank, n and bound; exact binomial bounds
misses    deadline misses, counted in events
steady    whether it was still changing
distill   stamps → figures
facts     what this machine and this process are
result    the schema of result.json
slo       service-level objectives, and the verdict on a result
compare   two sets of results
"""
