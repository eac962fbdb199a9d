"""Power modes: every mode, clocks locked and free, measured in random order, the device's state always restored.

tools    `nvpmodel` and `jetson_clocks`, run as programs and never believed: what they did is read back
guard    a process that restores the state when the sweep ends, however it ends
sweep    the order, cooling down, one fresh process for each measurement
record   the schema of `sweep.json`
"""
