"""Loads arrays with NumPy and sums them, in float64 as the others do, or in their own float32.

numpy_sum.py float64|float32 JOB    runs a job
numpy_sum.py pack NPY COUNT NPZ     writes the array as COUNT parts into a compressed archive
"""
import json
import re
import sys
import time

import numpy as np

if sys.argv[1] == "pack":
    np.savez_compressed(sys.argv[4], *np.array_split(np.load(sys.argv[2]), int(sys.argv[3])))
    sys.exit()


def load(path):
    loaded = np.load(path)
    return [loaded] if isinstance(loaded, np.ndarray) else [loaded[name] for name in loaded.files]


dtype = np.dtype(sys.argv[1])
with open(sys.argv[2]) as file:
    job = json.load(file)
seconds = []
for round in range(job["rounds"] + 1):
    started = time.perf_counter()
    total = sum(array.sum(dtype=dtype) for array in load(job["input"]))
    if round > 0:
        seconds.append(time.perf_counter() - started)
    else:
        cpu = time.process_time()
cpu = time.process_time() - cpu
with open(job["output"], "w") as file:
    file.write(repr(float(total)))
with open("/proc/self/status") as status:
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1]) * 1024
print(json.dumps({"seconds": seconds, "cpuSeconds": cpu / job["rounds"], "peakBytes": peak}))
