"""The step rules in NumPy, for test/core/step.test.ts.

Reads one JSON object a line: {rule, dtype, parameters, a, x, m, v} with arrays as hexadecimal bytes; prints {x, m, v}.
"""
import json
import sys

import numpy as np

np.seterr(all="ignore")


def bfloat16_values(raw):
    return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype("f8")


def bfloat16_bytes(x):
    """Nearest bfloat16 of binary64 numbers: the two neighbours compared by exact distance."""
    out = []
    for value in x:
        if np.isnan(value):
            out.append(0x7FC0)
            continue
        sign = 0x8000 if np.signbit(value) else 0
        a = abs(float(value))
        if a >= (2 - 2.0**-8) * 2.0**127:
            out.append(sign | 0x7F80)
            continue
        low, high = 0, 0x7F7F
        value_of = lambda bits: float(np.array([bits << 16], "<u4").view("<f4")[0])
        while low < high:
            middle = (low + high + 1) // 2
            if value_of(middle) <= a:
                low = middle
            else:
                high = middle - 1
        below = value_of(low)
        above = value_of(low + 1) if low < 0x7F7F else 2.0**128
        up = (above - a) < (a - below) or ((above - a) == (a - below) and low & 1)
        out.append(sign | (low + 1 if up else low))
    return np.array(out, "<u2").tobytes()


def load(raw, dtype):
    raw = bytes.fromhex(raw)
    if dtype == "bfloat16":
        return bfloat16_values(raw)
    return np.frombuffer(raw, "<" + {"float16": "f2", "float32": "f4", "float64": "f8"}[dtype]).astype("f8")


def save(x, dtype):
    if dtype == "bfloat16":
        return bfloat16_bytes(x).hex()
    kind = {"float16": "f2", "float32": "f4", "float64": "f8"}[dtype]
    out = x.astype("<" + kind)
    out[np.isnan(out)] = np.nan
    return out.tobytes().hex()


def step(rule, p, a, x, m, v):
    d = p["scale"] * (a if p["differences"] else a - x)
    if rule == "rate":
        return x + d, m, v
    if rule == "momentum":
        m = p["beta1"] * m + d
        return x + p["learningRate"] * m, m, v
    m = p["beta1"] * m + (1 - p["beta1"]) * d
    square = d * d
    if rule == "adagrad":
        v = v + square
    elif rule == "adam":
        v = p["beta2"] * v + (1 - p["beta2"]) * square
    else:
        v = v - (1 - p["beta2"]) * square * np.sign(v - square)
    return x + p["learningRate"] * m / (np.sqrt(v) + p["tau"]), m, v


for line in sys.stdin:
    case = json.loads(line)
    dtype, slot = case["dtype"], case["slot"]
    x, m, v = step(case["rule"], case["parameters"], load(case["a"], dtype), load(case["x"], dtype),
                   load(case["m"], slot), load(case["v"], slot))
    print(json.dumps({"x": save(x, dtype), "m": save(m, slot), "v": save(v, slot)}))
