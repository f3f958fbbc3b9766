"""Partial sums as one keeps them in NumPy: weighted float64 sums in .npy files, in place and one by one.

sum: models to their sum
merge: sums to the mean of all
without: two sums to the mean of what the second is taken out of
"""
import sys

import numpy as np
from contend import contend, read_job

job = read_job()
paths = [item["path"] for item in job["inputs"]]


def sum_models():
    total = None
    for path in paths:
        weighting, arrays = np.load(path, allow_pickle=True)
        weighted = np.multiply(arrays[0], np.float64(weighting), dtype=np.float64)
        if total is None:
            total = weighted
        else:
            total += weighted
    np.save(job["output"], total)


def mean_of(change):
    total = np.load(paths[0])
    for path in paths[1:]:
        change(total, np.load(path), out=total)
    total /= job["totalWeighting"]
    result = np.empty(2, object)
    result[:] = job["totalWeighting"], [total.astype(np.float32)]
    np.save(job["output"], result)


contend(
    job,
    {
        "sum": sum_models,
        "merge": lambda: mean_of(np.add),
        "without": lambda: mean_of(np.subtract),
    }[sys.argv[1]],
)
