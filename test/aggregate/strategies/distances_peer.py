"""NumPy's own Krum, geometric median and clipped mean, for the tests of the strategies.

Reads one line of JSON {"cases": [{"inputs": k, "numbers": n, "weightings": [...], ...}]} and then, for each case, k (with
"norm": k + 1, the global model last) rows of n binary64 numbers. Prints one line of JSON for each case.
"""
import json
import sys

import numpy as np


def ranks(x, byzantine):
    k = len(x)
    squared = np.array([[np.sum((a - b) ** 2) for b in x] for a in x])
    scores = [np.sum(np.sort(np.delete(squared[i], i))[: k - byzantine - 2]) for i in range(k)]
    return [int(i) for i in np.argsort(scores, kind="stable")], squared


def weiszfeld(x, masses, smoothing, steps):
    beta = masses.astype(np.float64)
    for _ in range(steps):
        z = np.average(x, axis=0, weights=beta)
        beta = masses / np.maximum(smoothing, np.linalg.norm(x - z, axis=1))
    return np.average(x, axis=0, weights=beta)


def clipped_mean(x, model, weightings, norm):
    delta = x - model
    factors = np.minimum(1, norm / np.maximum(np.linalg.norm(delta, axis=1), 1e-300))
    return model + (weightings * factors) @ delta / weightings.sum()


def answer(case, rows):
    x = rows[: case["inputs"]]
    weightings = np.array(case["weightings"], np.float64)
    if "byzantine" in case:
        order, squared = ranks(x, case["byzantine"])
        return {"order": order, "squared": squared[np.triu_indices(len(x), 1)].tolist()}
    if "norm" in case:
        return {"result": clipped_mean(x, rows[-1], weightings, case["norm"]).tolist()}
    z = weiszfeld(x, weightings, case["smoothing"], case["steps"])
    return {"result": z.tolist(), "objective": float(weightings @ np.linalg.norm(x - z, axis=1))}


for case in json.loads(sys.stdin.buffer.readline())["cases"]:
    count = case["inputs"] + ("norm" in case)
    data = sys.stdin.buffer.read(8 * count * case["numbers"])
    print(json.dumps(answer(case, np.frombuffer(data, "<f8").reshape(count, -1))))
