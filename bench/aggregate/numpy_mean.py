"""The mean of files as one writes it in NumPy.

flower: load all, multiply, add, divide, save: the formula of Flower's aggregate(), in float32
careful: load one by one, accumulate in place, float32
"""
import sys
from functools import reduce

import numpy as np
from contend import contend, read_job


def flower(inputs):
    loaded = [np.load(item["path"], allow_pickle=True) for item in inputs]
    total = sum(weighting for weighting, _ in loaded)
    weighted = [[layer * weighting for layer in arrays] for weighting, arrays in loaded]
    return total, [reduce(np.add, layers) / total for layers in zip(*weighted)]


def careful(inputs):
    total, sums = 0, None
    for item in inputs:
        weighting, arrays = np.load(item["path"], allow_pickle=True)
        for array in arrays:
            np.multiply(array, np.float32(weighting), out=array)
        if sums is None:
            sums = arrays
        else:
            for into, array in zip(sums, arrays):
                into += array
        total += weighting
    for into in sums:
        into /= np.float32(total)
    return total, sums


mean = {"flower": flower, "careful": careful}[sys.argv[1]]
job = read_job()


def work():
    total, arrays = mean(job["inputs"])
    result = np.empty(2, object)
    result[:] = total, list(arrays)
    np.save(job["output"], result)


contend(job, work)
