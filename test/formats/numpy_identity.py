"""NumPy on the other side of numpy-identity.long.ts.

Frames on stdin: u32 length and JSON {weighting, isFloat, tensors: [[name, dtype, shape]]}, u32 length and the file,
u32 length and the elements of all tensors. Builds the same object array from the elements, saves it, and compares the
bytes with the file; loads the file, and compares every array. A frame of length 0 ends a batch: a line of JSON answers.
"""
import io
import json
import struct
import sys
import warnings

import numpy as np

warnings.simplefilter("error")
stream = sys.stdin.buffer
# One object for each: NumPy has a single float32, but makes a V2 whenever asked, and pickle shares by identity.
DTYPES = {name: np.dtype(name) for name in (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64", "complex64", "complex128", "V2")}


def frame():
    head = stream.read(4)
    return stream.read(struct.unpack("<I", head)[0]) if len(head) == 4 else b""


def check(spec, file, elements):
    """Why this file is not NumPy's, or None."""
    parameters, offset = [], 0
    for name, dtype, shape in spec["tensors"]:
        dtype = DTYPES[dtype]
        count = int(np.prod(shape, dtype=object)) if shape else 1
        # np.array makes memory of its own: a view would make pickle share what no model shares.
        array = np.array(np.frombuffer(elements, dtype, count, offset)).reshape(shape)
        offset += array.nbytes
        parameters.append(array if name is None else [name, array])
    if offset != len(elements):
        return f"{len(elements)} bytes of elements, {offset} expected"
    weighting = float(spec["weighting"]) if spec["isFloat"] else int(spec["weighting"])
    outer = np.empty(2, dtype=object)
    outer[0], outer[1] = weighting, parameters
    saved = io.BytesIO()
    np.save(saved, outer)
    if saved.getvalue() != file:
        at = next((i for i, (a, b) in enumerate(zip(saved.getvalue(), file)) if a != b), min(saved.tell(), len(file)))
        return f"byte {at} differs: NumPy {saved.getvalue()[at:at + 16]!r}, ours {file[at:at + 16]!r}"
    found_weighting, found = np.load(io.BytesIO(file), allow_pickle=True)
    if repr(found_weighting) != repr(weighting) or type(found) is not list or len(found) != len(parameters):
        return f"loads as {found_weighting!r} and {len(found)} parameters"
    for i, (ours, theirs) in enumerate(zip(found, parameters)):
        if isinstance(theirs, list):
            if ours[0] != theirs[0]:
                return f"name {i} loads as {ours[0]!r}"
            ours, theirs = ours[1], theirs[1]
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape or ours.tobytes() != theirs.tobytes():
            return f"array {i} loads as {ours.dtype} of {ours.shape}"
    return None


while True:
    checked, failure, spec = 0, None, frame()
    if not spec:
        break
    while spec:
        file, elements = frame(), frame()
        failure = failure or check(json.loads(spec), file, elements)
        checked += failure is None
        spec = frame()
    print(json.dumps({"checked": checked, "failure": failure}), flush=True)
