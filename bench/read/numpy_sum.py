"""Loads an array with NumPy and sums it, in float64 as the others do, or in its own float32."""
import json
import re
import sys
import time

import numpy as np

dtype = np.dtype(sys.argv[1])
with open(sys.argv[2]) as file:
    job = json.load(file)
seconds = []
for round in range(job["rounds"] + 1):
    started = time.perf_counter()
    total = np.load(job["input"]).sum(dtype=dtype)
    if round > 0:
        seconds.append(time.perf_counter() - started)
with open(job["output"], "w") as file:
    file.write(repr(float(total)))
with open("/proc/self/status") as status:
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status.read())[1]) * 1024
print(json.dumps({"seconds": seconds, "peakBytes": peak}))
