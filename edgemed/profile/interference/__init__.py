"""Load on purpose beside a measurement: what a device does that runs more than one model.

spec       what was asked for: `cpu:4,memory:2GiB/s,disk,network`
worker     the child process that makes one kind of load, and counts what it managed
interferer starts workers before the first frame, and stops them whatever happens
"""
