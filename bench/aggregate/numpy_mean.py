"""The mean as one writes it in NumPy: load, weighted sum, divide, save. float32 sums follow Flower's aggregate()."""
import json
import re
import sys
import time
from functools import reduce

import numpy as np


def mean_float32(inputs):
    loaded = [np.load(item["path"], allow_pickle=True) for item in inputs]
    total = sum(weighting for weighting, _ in loaded)
    weighted = [[layer * weighting for layer in arrays] for weighting, arrays in loaded]
    return total, [reduce(np.add, layers) / total for layers in zip(*weighted)]


def mean_float64(inputs):
    total, sums = 0, None
    for item in inputs:
        weighting, arrays = np.load(item["path"], allow_pickle=True)
        if sums is None:
            sums = [np.zeros(array.shape) for array in arrays]
        for into, array in zip(sums, arrays):
            into += weighting * array.astype(np.float64)
        total += weighting
    return total, [(into / total).astype(np.float32) for into in sums]


mean = {"float32": mean_float32, "float64": mean_float64}[sys.argv[1]]
with open(sys.argv[2]) as file:
    job = json.load(file)
seconds = []
for round in range(job["rounds"] + 1):
    started = time.perf_counter()
    total, arrays = mean(job["inputs"])
    np.save(job["output"], np.asarray((total, arrays), dtype=object))
    if round > 0:
        seconds.append(time.perf_counter() - started)
with open("/proc/self/status") as status:
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1]) * 1024
print(json.dumps({"seconds": seconds, "peakBytes": peak}))
