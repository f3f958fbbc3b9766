"""Order statistics by NumPy's sort: what the kernels are compared with.

DIR DTYPE K cut N           the mean of what is left without N values at each end
DIR DTYPE K weigh W...      the weighted median

Reads K blocks from DIR/inputs and writes DIR/output. Sums of the values must be exact in float64.
"""
import sys

import numpy as np

folder, dtype, k, rule = sys.argv[1:5]
numbers = [int(word) for word in sys.argv[5:]]
kind = np.dtype(dtype)
inputs = np.fromfile(folder + "/inputs", kind).reshape(int(k), -1)


def mean(rows):
    """The mean over the first axis, rounded once, ties to even."""
    if kind.kind == "f":
        return (rows.astype(np.float64).sum(axis=0) / len(rows)).astype(kind)
    total = rows.astype(np.int64).sum(axis=0)
    floor = total // len(rows)
    twice = 2 * (total - floor * len(rows))
    up = (twice > len(rows)) | ((twice == len(rows)) & (floor % 2 == 1))
    return (floor + up).astype(kind)


if rule == "cut":
    (cut,) = numbers
    result = mean(np.sort(inputs, axis=0)[cut:len(inputs) - cut])
else:
    order = np.argsort(inputs, axis=0, kind="stable")
    rows = np.take_along_axis(inputs, order, axis=0)
    twice = 2 * np.cumsum(np.array(numbers)[order], axis=0)
    lower = np.argmax(twice >= sum(numbers), axis=0)
    upper = np.argmax(twice > sum(numbers), axis=0)
    columns = np.arange(rows.shape[1])
    result = mean(np.stack([rows[lower, columns], rows[upper, columns]]))

np.ascontiguousarray(result).tofile(folder + "/output")
