"""NumPy on the other side of the tests of archives.

write DIR SEED COUNT   writes archives into DIR, prints what they hold as JSON, one file per line
read FILE...           prints what numpy.load and zipfile find in each file
"""
import hashlib
import json
import random
import sys
import zipfile

import numpy as np

DTYPES = ["?", "i1", "u1", "<i2", "<u4", "<i8", "<f2", "<f4", "<f8", "<c8", ">i4", ">f8"]


def describe(array):
    """An array as Cambium names it; the digest is of its elements in C order, little endian."""
    plain = np.ascontiguousarray(array).reshape(array.shape)
    if plain.dtype.byteorder == ">":
        plain = plain.astype(plain.dtype.newbyteorder("<"))
    return {"dtype": array.dtype.newbyteorder("=").name, "shape": list(array.shape),
            "sha256": hashlib.sha256(plain.tobytes()).hexdigest()}


def random_array(rng):
    dtype = np.dtype(rng.choice(DTYPES))
    shape = [rng.choice([0, 1, 2, 3, 5, 17]) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
    count = int(np.prod(shape))
    data = bytes(rng.getrandbits(1 if dtype.kind == "b" else rng.choice([2, 8])) for _ in range(count * dtype.itemsize))
    array = np.frombuffer(data, dtype).reshape(shape)
    return np.asfortranarray(array) if rng.random() < 0.2 else array


class Pipe:
    """A file that cannot seek: zipfile puts sizes behind the data."""

    def __init__(self, file):
        self.write = file.write
        self.flush = file.flush
        self.read = None  # what NumPy knows a file by


def write(folder, seed, count):
    rng = random.Random(seed)
    for i in range(count):
        arrays = [random_array(rng) for _ in range(rng.choice([0, 1, 3, 12]))]
        names = [f"layer_{k}" for k in range(len(arrays))]
        if i % 3 == 0:
            names = [f"schicht.{k}/größe" for k in range(len(arrays))]
        members = dict(zip(names, arrays))
        weighting = rng.choice([None, 12.5, 3.0])
        if weighting is not None:
            members = {"weighting": np.array([weighting]), **members}
        save = rng.choice([np.savez, np.savez_compressed])
        path = f"{folder}/{i}.npz"
        with open(path, "wb") as file:
            save(Pipe(file) if i % 5 == 0 else file, **members)
        print(json.dumps({"path": path, "weighting": weighting,
                          "tensors": [{"name": n if i % 3 == 0 else None, **describe(a)}
                                      for n, a in zip(names, arrays)]}))


def read(path):
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    with np.load(path) as loaded:
        print(json.dumps({"damaged": damaged, "arrays": [{"name": n, **describe(loaded[n])} for n in loaded.files]}))


if sys.argv[1] == "write":
    write(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
else:
    for each in sys.argv[2:]:
        read(each)
