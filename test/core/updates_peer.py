"""Transforms of updates in NumPy, for test/core/updates.test.ts.

Reads one JSON object a line, arrays as hexadecimal bytes, and prints one a line.
"""
import json
import sys

import numpy as np

np.seterr(all="ignore")


def brain(x):
    """bfloat16 of float32, half to even."""
    bits = x.view("<u4").astype("u8")
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    rounded[np.isnan(x)] = 0x7FC0
    return rounded


def answer(case):
    raw = lambda key: bytes.fromhex(case[key])
    kind = case["kind"]
    if kind == "add":
        a, x = (np.frombuffer(raw(key), case["dtype"]) for key in "ax")
        result = a - x if case["subtract"] else a + x
        result = result.copy()
        result[np.isnan(result)] = np.nan
        return {"out": result.tobytes().hex()}
    if kind == "halves":
        x = np.frombuffer(raw("x"), "<f4")
        half = x.astype("<f2").view("<u2").copy()
        half[np.isnan(x)] = 0x7E00
        return {"float16": half.tobytes().hex(), "bfloat16": brain(x).tobytes().hex()}
    if kind == "top":
        x = np.frombuffer(raw("x"), "<f4")
        order = np.lexsort((np.arange(x.size), -np.abs(x)))[: case["k"]]
        indices = np.sort(order).astype("<u4")
        rest = x.copy()
        rest[indices] = 0
        return {
            "indices": indices.tobytes().hex(),
            "values": x[indices].tobytes().hex(),
            "rest": rest.tobytes().hex(),
        }
    if kind == "int8":
        x = np.frombuffer(raw("x"), "<f4")
        lo, hi = (float(np.float32(f(np.append(x, np.float32(0))))) for f in (np.min, np.max))
        scale = np.float32((hi - lo) / 255)
        zero = 0 if scale == 0 else int(np.clip(np.rint(-128 - lo / float(scale)), -128, 127))
        if scale == 0:
            codes = np.zeros(x.size, "i1")
        else:
            codes = np.clip(np.rint(x / scale).astype("f8") + zero, -128, 127).astype("i1")
        return {"codes": codes.tobytes().hex(), "scale": scale.tobytes().hex(), "zero": zero}
    raise ValueError(kind)


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))))
