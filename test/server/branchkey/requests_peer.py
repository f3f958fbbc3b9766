"""The HTTP side of BranchKey's clients, as the protocol is described in src/wire/branchkey.ts, spoken by python3-requests.

Reads a command in JSON from each line of stdin and prints what came of it as a line of JSON. Weight files are written and
read by NumPy.
"""

import io
import json
import sys

import numpy as np
import requests


class Bearer(requests.auth.AuthBase):
    def __init__(self, user, password):
        self.value = f"Bearer {user}:{password}"

    def __call__(self, request):
        request.headers["Authorization"] = self.value
        return request


def arrays_of(values):
    return [np.array(value, dtype=np.float32) for value in values]


def save(path, weighting, values):
    """[weighting, [arrays]] in a .npy, or weighting and layers in an .npz, by the name of the file."""
    if path.endswith(".npz"):
        layers = {f"layer_{i}": array for i, array in enumerate(arrays_of(values))}
        np.savez_compressed(path, weighting=np.array([weighting], dtype=np.float64), **layers)
        return
    content = np.empty(2, dtype=object)
    content[0] = weighting
    content[1] = arrays_of(values)
    np.save(path, content, allow_pickle=True)


def describe(body):
    """What a weight file holds, as NumPy reads it."""
    found = np.load(io.BytesIO(body), allow_pickle=True)
    if isinstance(found, np.lib.npyio.NpzFile):
        return {"keys": found.files, "arrays": [found[key].tolist() for key in found.files]}
    weighting, arrays = found
    kinds = [type(weighting).__name__, type(arrays).__name__, *{type(array).__name__ for array in arrays}]
    return {
        "shape": list(found.shape),
        "weighting": weighting,
        "kinds": kinds,
        "arrays": [array.tolist() for array in arrays],
    }


def answer(response):
    try:
        body = response.json()
    except ValueError:
        body = None
    return {"status": response.status_code, "type": response.headers.get("content-type"), "body": body}


session = requests.Session()


def send(command):
    """One request; `text` is sent as a body without a content type, `file` as the multipart form of an upload."""
    user, password = command.get("auth", [None, None])
    auth = None if user is None else Bearer(user, password) if command.get("bearer") else (user, password)
    options = {"headers": command.get("headers", {}), "auth": auth, "timeout": 30}
    if "text" in command:
        options["data"] = command["text"]
    if "file" in command:
        fields = json.dumps({"leaf_name": command["leaf"], "metadata": "{'key1':'value1', 'key2':'value2'}"})
        with open(command["file"], "rb") as file:
            name = command["file"].rsplit("/", 1)[-1]
            options["files"] = [("data", (None, fields)), ("file", (name, file.read()))]
    return session.request(command["method"], command["url"], **options)


for line in sys.stdin:
    command = json.loads(line)
    if command["do"] == "save":
        save(command["path"], command["weighting"], command["values"])
        result = {}
    elif command["do"] == "send":
        result = answer(send(command))
    else:
        response = send(command)
        result = {**answer(response), "file": describe(response.content) if response.ok else None}
    print(json.dumps(result), flush=True)
