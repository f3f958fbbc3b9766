"""NumPy on the other side of the format tests.

write DIR SEED COUNT   writes random arrays and weight files into DIR, prints what they hold as JSON, one file per line
read FILE...           prints what numpy.load finds in each file, and whether numpy.save writes the same bytes again
"""
import hashlib
import io
import json
import pickle
import random
import sys
import warnings

import numpy as np

warnings.simplefilter("error")

DTYPES = ["?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16",
          ">i2", ">u4", ">i8", ">f2", ">f4", ">f8", ">c8", ">c16", "V2"]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def describe(array):
    """An array as Cambium names it; the digest is of its elements in C order, little endian."""
    name = "void16" if array.dtype.kind == "V" else array.dtype.newbyteorder("=").name
    plain = np.ascontiguousarray(array).reshape(array.shape)
    if plain.dtype.byteorder == ">":
        plain = plain.astype(plain.dtype.newbyteorder("<"))
    return {"dtype": name, "shape": list(array.shape), "sha256": digest(plain.tobytes())}


def random_array(rng):
    dtype = np.dtype(rng.choice(DTYPES))
    shape = [rng.choice([0, 1, 2, 3, 5, 17]) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 5]))]
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if count > 50_000:
        shape, count = [7], 7
    data = bytes(rng.getrandbits(8) for _ in range(min(count * dtype.itemsize, 4096)))
    data = (data * (count * dtype.itemsize // max(1, len(data)) + 1))[: count * dtype.itemsize]
    if dtype.kind == "b":
        data = bytes(byte & 1 for byte in data)
    array = np.frombuffer(data, dtype).reshape(shape).copy()
    form = rng.choice(["C", "C", "F", "transposed", "strided"])
    if form == "F":
        array = np.asfortranarray(array)
    elif form == "transposed":
        array = array.T
    elif form == "strided" and array.ndim and array.shape[0] > 1:
        array = array[::2]
    return array


def random_weighting(rng):
    integer = rng.choice([0, 1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**53 - 1, -1, -129, -(2**31), -(2**31) - 1,
                          rng.randrange(1, 5000)])
    real = rng.choice([0.5, 12.25, 1e-300, 3.0, -2.0])
    kind = rng.randrange(8)
    if kind < 3:
        return integer, "int", integer
    if kind < 5:
        return real, "float", real
    if kind == 5:
        return np.int64(integer), "int", integer
    if kind == 6:
        return np.array([np.float32(2.5)]), "float", 2.5
    return np.array(integer, dtype=">i8"), "int", integer


def outer(weighting, parameters):
    array = np.empty(2, dtype=object)
    array[0] = weighting
    array[1] = parameters
    return array


def save_with(path, array, protocol):
    """An object array with a pickle protocol that this NumPy would not choose."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        pickle.dump(array, file, protocol=protocol)


def write(folder, seed, count):
    rng = random.Random(seed)
    for i in range(count):
        path = f"{folder}/{i}.npy"
        if i % 3 == 0:
            array = random_array(rng)
            np.save(path, array)
            print(json.dumps({"path": path, "format": "npy", "tensors": [{"name": None, **describe(array)}]}))
            continue
        arrays = [random_array(rng) for _ in range(rng.choice([0, 1, 2, 3, 8, 40, 300 if i % 7 == 0 else 5]))]
        names = [f"layer.{k}" if rng.random() < 0.3 else None for k in range(len(arrays))]
        parameters = [a if n is None else [n, a] for n, a in zip(names, arrays)]
        described = [{"name": n, **describe(a)} for n, a in zip(names, arrays)]
        if rng.random() < 0.2 and parameters:
            parameters.append(parameters[0] if names[0] is None else arrays[0])
            described.append({**described[0], "name": None})
        if rng.random() < 0.2:
            parameters = tuple(parameters)
        if rng.random() < 0.2:
            parameters = [parameters]
        weighting, kind, value = random_weighting(rng)
        protocol = rng.choice([2, 3, 3, 3, 4, 5])
        if protocol == 3:
            np.save(path, outer(weighting, parameters))
        else:
            save_with(path, outer(weighting, parameters), protocol)
        print(json.dumps({"path": path, "format": "npy-object", "protocol": protocol, "weighting": value,
                          "weightingType": kind, "tensors": described}))


def read(path):
    loaded = np.load(path, allow_pickle=True)
    again = io.BytesIO()
    if loaded.dtype != object:
        np.save(again, loaded)
        result = {"kind": "ndarray", "tensors": [{"name": None, **describe(loaded)}]}
    else:
        weighting, parameters = loaded
        np.save(again, outer(weighting, parameters))
        pairs = [(None, p) if isinstance(p, np.ndarray) else tuple(p) for p in parameters]
        result = {"kind": f"{type(weighting).__name__}, {type(parameters).__name__}", "weighting": repr(weighting),
                  "tensors": [{"name": n, **describe(a)} for n, a in pairs]}
    with open(path, "rb") as file:
        result["same"] = digest(file.read()) == digest(again.getvalue())
    print(json.dumps(result))


if sys.argv[1] == "write":
    write(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
else:
    for each in sys.argv[2:]:
        read(each)
