"""int8 in blocks with NumPy: encode all models; decode one by one and accumulate in place."""
import json
import sys
import time

import numpy as np

source, target = sys.argv[1:3]
models, block, rounds = map(int, sys.argv[3:6])
weightings = [int(text) for text in sys.argv[6].split(",")]
x = np.fromfile(source, np.float32).reshape(models, -1, block)


def encode(blocks):
    lo = np.minimum(blocks.min(axis=1), 0)
    hi = np.maximum(blocks.max(axis=1), 0)
    scale = ((hi.astype(np.float64) - lo) / 255).astype(np.float32)
    zero = np.clip(np.rint(-128 - lo.astype(np.float64) / scale), -128, 127).astype(np.float32)
    codes = blocks / scale[:, None]
    np.rint(codes, out=codes)
    codes += zero[:, None]
    np.clip(codes, -128, 127, out=codes)
    return codes.astype(np.int8), scale, zero


def fold(encoded):
    sums = None
    for (codes, scale, zero), weighting in zip(encoded, weightings):
        decoded = codes.astype(np.float32)
        decoded -= zero[:, None]
        decoded *= (scale * np.float32(weighting))[:, None]
        if sums is None:
            sums = decoded
        else:
            sums += decoded
    sums /= np.float32(sum(weightings))
    return sums


def timed(work):
    result = work()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return seconds, result


encode_seconds, encoded = timed(lambda: [encode(blocks) for blocks in x])
fold_seconds, mean = timed(lambda: fold(encoded))
mean.tofile(target)
print(json.dumps({"encode": encode_seconds, "fold": fold_seconds}))
