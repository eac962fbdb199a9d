"""Sensors beside a measurement.

sensors   which there are, and how each is read: sysfs under a root that tests choose, NVML on discrete GPUs
sampler   the child process that reads them all, and writes rows to a file
recorder  starts it, reads its file, ends it: what stands beside a measurement
summary   rows → what stands in the result
"""
