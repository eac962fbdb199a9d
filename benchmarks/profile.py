"""The profiler beside MLPerf LoadGen, and what it costs: `make bench-profile`.

1. LoadGen drives a Runner. Percentiles that we compute from its own log of latencies are those of its own summary, to
   the nanosecond. (Both take a sample, never a mean of two. LoadGen takes the one of rank ⌊np⌋ + 1, we ⌈np⌉: the same
   where np is no whole number, so the number of queries is a prime.)
2. The same Runner by LoadGen and by us, run by run in turn. Our medians over all runs differ from LoadGen's by no more
   than LoadGen's own runs differ from each other. The null Runner is shown too: there, only the callers are timed.
3. Own cost per frame on the null Runner; memory of a run of 10 million frames with all its figures and its report; time
   from the last frame of a million to result.json, report.html and report.md.

LoadGen comes from PyPI into a folder of its own, at a pinned version.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgemed.base.runner import Runner, RunnerInfo, RunnerSpecs, TensorSpec
from edgemed.profile.cost import own_cost
from edgemed.profile.load import parse_load
from edgemed.profile.markdown import MARKDOWN, profile_markdown, write_markdown
from edgemed.profile.measure import Arrays, Plan, measure_runner
from edgemed.profile.page import REPORT, write_page
from edgemed.profile.result import SAMPLES
from edgemed.profile.session import About, fingerprint_of, profile
from edgemed.profile.stamps import DONE, INTENDED
from edgemed.profile.stats import nearest_rank, share_of
from edgemed.runners.null import NullRunner
from edgemed.runners.ort import OnnxRuntimeRunner

LOADGEN = "mlcommons-loadgen==6.0.17"
QUERIES = 2003  # a prime: no share of it is a whole number
PERCENTILES = ("50", "90", "95", "97", "99", "99.9")
COMPARED = ("50", "90", "99")
MILLION = 1_000_000

Latencies = NDArray[np.int64]
_SAMPLE = re.compile(r'"name":"Sample",[^\n]*"ph":"b"[^\n]*"issue_start_ns":(\d+),"complete_ns":(\d+)')


def fetch_loadgen() -> Any:
    """The module `mlperf_loadgen`, installed into a folder that its version names."""
    tag = f"{LOADGEN.replace('==', '-')}-py{sys.version_info[0]}{sys.version_info[1]}"
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgemed" / tag
    if not folder.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*command, "--target", folder, LOADGEN], check=True)
    sys.path.insert(0, str(folder))
    return importlib.import_module("mlperf_loadgen")


def by_loadgen(loadgen: Any, runner: Runner, feeds: Arrays, queries: int, folder: Path) -> Latencies:
    """Latencies of a SingleStream run, as LoadGen logged them; its logs are left in `folder`."""

    def issue(samples: Sequence[Any]) -> None:
        for sample in samples:
            runner.infer(feeds)
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample.id, 0, 0)])

    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.SingleStream
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_query_count = settings.max_query_count = queries
    settings.min_duration_ms = 0
    settings.single_stream_expected_latency_ns = 1_000_000
    output = loadgen.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = str(folder), False
    logs = loadgen.LogSettings()
    logs.log_output, logs.enable_trace = output, True
    system = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(1, 1, lambda _: None, lambda _: None)
    try:
        loadgen.StartTestWithLogSettings(system, library, settings, logs, "")
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)
    # line by line: keys of its own log stand in it with quotes too many, so the file as a whole is no JSON
    text = (folder / "mlperf_log_trace.json").read_text()
    latencies = np.array([int(end) - int(start) for start, end in _SAMPLE.findall(text)], np.int64)
    assert len(latencies) == queries, f"LoadGen logged {len(latencies)} of {queries} queries"
    return latencies


def summary_of(folder: Path) -> dict[str, int]:
    """Percentiles, minimum and maximum (ns) of LoadGen's summary."""
    found = {}
    for line in (folder / "mlperf_log_summary.txt").read_text().splitlines():
        label, colon, value = line.partition(":")
        words = label.split()
        if colon and words[1:3] == ["percentile", "latency"] and not words[0].endswith("th"):
            found[f"{float(words[0]):g}"] = int(value)
        elif colon and words[:2] in (["Min", "latency"], ["Max", "latency"]):
            found[words[0].lower()] = int(value)
    return found


def ours_of(latencies: Latencies) -> dict[str, int]:
    """The same by our definition of a percentile."""
    ordered = np.sort(latencies)
    found = {p: int(ordered[nearest_rank(len(ordered), share_of(p)) - 1]) for p in PERCENTILES}
    return found | {"min": int(ordered[0]), "max": int(ordered[-1])}


def log_difference(folder: Path, latencies: Latencies) -> int:
    """The largest difference (ns) between our figures from its log and its own summary."""
    theirs, ours = summary_of(folder), ours_of(latencies)
    assert set(ours) <= set(theirs), theirs
    return max(abs(ours[key] - theirs[key]) for key in ours)


def by_us(runner: Runner, feeds: Arrays, queries: int, folder: Path) -> Latencies:
    """Latencies of a closed load, as the profiler stamps them."""
    plan = Plan(parse_load("closed"), frames=queries, warmup_frames=0, warmup_ns=0)
    samples = measure_runner(runner, [feeds], plan, folder / SAMPLES).samples
    return samples.column(DONE) - samples.column(INTENDED)


def interleave(
    loadgen: Any, runner: Runner, feeds: Arrays, runs: int, folder: Path
) -> tuple[dict[str, list[dict[str, int]]], int]:
    """Runs of both in turn, A B B A, and the largest difference from LoadGen's own summaries."""
    contestants: Mapping[str, Callable[[], Latencies]] = {
        "loadgen": lambda: by_loadgen(loadgen, runner, feeds, QUERIES, folder),
        "edgemed": lambda: by_us(runner, feeds, QUERIES, folder),
    }
    found: dict[str, list[dict[str, int]]] = {name: [] for name in contestants}
    difference = 0
    for number in range(runs):
        for name in list(contestants)[:: 1 if number % 2 == 0 else -1]:
            latencies = contestants[name]()
            found[name].append(ours_of(latencies))
            if name == "loadgen":
                difference = max(difference, log_difference(folder, latencies))
    return found, difference


def compare(title: str, found: Mapping[str, Sequence[Mapping[str, int]]]) -> list[float]:
    """Print a table; return our differences as shares of LoadGen's spread."""
    print(f"\n| {title} | LoadGen µs | its runs from … to | edgemed µs | difference | of its spread |")
    print("| --- | --- | --- | --- | --- | --- |")
    shares = []
    for p in COMPARED:
        theirs, ours = ([run[p] for run in found[name]] for name in ("loadgen", "edgemed"))
        middle, own = statistics.median(theirs), statistics.median(ours)
        spread = max(theirs) - min(theirs)
        shares.append(abs(own - middle) / max(1, spread))
        print(
            f"| p{p} | {middle / 1e3:.1f} | {min(theirs) / 1e3:.1f} … {max(theirs) / 1e3:.1f} | {own / 1e3:.1f} | "
            f"{(own - middle) / 1e3:+.1f} | {shares[-1]:.2f} |"
        )
    return shares


def network() -> bytes:
    """Four convolutions of 16 channels on 96 x 96: a millisecond or two, as small models take."""
    random = np.random.default_rng(0)
    nodes, constants = [], []
    for index in range(4):
        channels = 1 if index == 0 else 16
        weights = random.normal(0, 0.1, (16, channels, 3, 3)).astype(np.float32)
        constants.append(onnx.numpy_helper.from_array(weights, f"w{index}"))
        node = helper.make_node("Conv", [f"x{index}", f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1])
        nodes += [node, helper.make_node("Relu", [f"c{index}"], [f"x{index + 1}"])]
    image = helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 1, 96, 96])
    answer = helper.make_tensor_value_info("x4", TensorProto.FLOAT, [1, 16, 96, 96])
    graph = helper.make_graph(nodes, "four", [image], [answer], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def null_runner() -> tuple[NullRunner, Arrays]:
    """A Runner that answers at once."""
    specs = RunnerSpecs((TensorSpec("x", "float32", (1,)),), (TensorSpec("y", "float32", (1,)),))
    answer = {"y": np.zeros(1, np.float32)}
    return NullRunner(specs, lambda _: answer), {"x": np.zeros(1, np.float32)}


def report_run(frames: int, folder: Path) -> dict[str, float]:
    """Measure the null Runner and write everything: seconds from the last frame on, highest memory, bytes of HTML."""
    runner, feeds = null_runner()
    plan = Plan(parse_load("closed"), frames=frames, warmup_frames=0, warmup_ns=0)
    measurement = measure_runner(runner, [feeds], plan, folder / SAMPLES)
    about = About("null", fingerprint_of(RunnerInfo("null", "none", "none"), None), ("zeros", 1))
    began = time.monotonic_ns()
    profiled = profile(lambda: measurement, about, deadline_ns=50_000, output=folder)
    write_page(profiled.result, measurement.samples, (), folder / REPORT)
    write_markdown(profile_markdown(profiled.result), folder / MARKDOWN)
    seconds = (time.monotonic_ns() - began) / 1e9
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "rss_mb": rss / 1e6, "html_mb": (folder / REPORT).stat().st_size / 1e6}


def in_a_process(frames: int) -> dict[str, float]:
    """`report_run` in a fresh process, whose memory is its own."""
    command = [sys.executable, "-m", "benchmarks.profile", "--report", str(frames)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Run everything; print tables and one BENCH line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10, help="of each, in turn")
    parser.add_argument("--frames", type=int, default=10 * MILLION, help="of the run whose memory is taken")
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.report:
            print(json.dumps(report_run(arguments.report, folder)))
            return
        loadgen = fetch_loadgen()
        feeds = {"x0": np.random.default_rng(0).random((1, 1, 96, 96), np.float32)}
        with OnnxRuntimeRunner(network(), threads=1) as runner:
            by_us(runner, feeds, QUERIES // 4, folder)
            found, difference = interleave(loadgen, runner, feeds, arguments.runs, folder)
        shares = compare("ONNX Runtime, one thread", found)
        null, zeros = null_runner()
        found, null_difference = interleave(loadgen, null, zeros, arguments.runs, folder)
        compare("null Runner", found)
        cost = own_cost(folder)
    million, many = in_a_process(MILLION), in_a_process(arguments.frames)
    result = {
        "name": "profile",
        "loadgen_log_diff": max(difference, null_difference),
        "loadgen_spread_share": round(max(shares), 2),
        "cost_us_per_frame": round(cost.per_frame_ns / 1e3, 2),
        "rss_mb_10m": round(many["rss_mb"]),
        "report_s_1m": round(million["seconds"], 2),
        "html_mb_1m": round(million["html_mb"], 2),
    }
    print(f"\nmemory of {arguments.frames:,} frames {many['rss_mb']:.0f} MB, their report {many['seconds']:.1f} s")
    print("BENCH " + json.dumps(result, separators=(",", ":")))


if __name__ == "__main__":
    main()
