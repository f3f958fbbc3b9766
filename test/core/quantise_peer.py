"""int8 quantisation in NumPy, for test/core/quantise.test.ts: {x, block} as JSON a line, {codes, scales, zeros, decoded}."""
import json
import sys

import numpy as np

for line in sys.stdin:
    case = json.loads(line)
    x = np.frombuffer(bytes.fromhex(case["x"]), "<f4")
    codes, scales, zeros, decoded = [], [], [], []
    for at in range(0, len(x), case["block"]):
        part = x[at:at + case["block"]]
        lo, hi = min(np.float64(0), np.float64(part.min())), max(np.float64(0), np.float64(part.max()))
        scale = np.float32((hi - lo) / 255)
        zero = 0
        q = np.zeros(len(part))
        if scale > 0:
            zero = int(np.clip(np.rint(-128 - lo / np.float64(scale)), -128, 127))
            q = np.clip(np.rint(part / scale).astype("f8") + zero, -128, 127)
        codes.append(q.astype("i1").tobytes())
        scales.append(scale.tobytes())
        zeros.append(np.int8(zero).tobytes())
        decoded.append((np.float64(scale) * (q - zero)).astype("<f4").tobytes())
    parts = {"codes": codes, "scales": scales, "zeros": zeros, "decoded": decoded}
    print(json.dumps({key: b"".join(value).hex() for key, value in parts.items()}))
