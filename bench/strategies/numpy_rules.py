"""Rules as one writes them in NumPy, over arrays that are in memory already: neither reads nor writes count."""
import sys

import numpy as np
from contend import contend, read_job

job = read_job()
updates = [np.load(item["path"], allow_pickle=True) for item in job["inputs"]]
stack = np.stack([arrays[0] for _, arrays in updates])
del updates


def trimmed():
    return np.sort(stack, axis=0)[1:-1].mean(axis=0)


def multi_krum(dtype):
    k, byzantine, select = len(stack), 2, 5
    squared = np.zeros((k, k))
    for a in range(k):
        for b in range(a + 1, k):
            difference = stack[a].astype(dtype) - stack[b]
            squared[a, b] = squared[b, a] = difference @ difference
    scores = [np.sort(np.delete(squared[a], a))[: k - byzantine - 2].sum() for a in range(k)]
    chosen = np.argsort(scores, kind="stable")[:select]
    return sum(stack[a] for a in chosen) / np.float32(select)


def adam():
    x, mean = stack[0], stack[1]
    m, v = adam.state
    difference = mean - x
    m = 0.9 * m + 0.1 * difference
    v = 0.99 * v + 0.01 * difference**2
    adam.state = m, v
    return x + 0.01 * m / (np.sqrt(v) + 1e-3)


adam.state = np.zeros_like(stack[0]), np.full_like(stack[0], 1e-6)
run = {
    "median": lambda: np.median(stack, axis=0),
    "trimmed": trimmed,
    "krum": lambda: multi_krum(np.float64),
    "krum32": lambda: multi_krum(np.float32),
    "adam": adam,
}[sys.argv[1]]
result = None


def work():
    global result
    result = run()


contend(job, work)
result.astype(np.float32).tofile(job["output"])
