"""Real torch for torch-peer.test.ts.

save FILE: writes a state dict of views.  read FILE...: loads state dicts, with weights_only and without.
Both print a line of JSON for each tensor, in order.
"""

import hashlib
import json
import sys
import warnings
from collections import OrderedDict

import torch

warnings.simplefilter("error")


def save(path):
    torch.manual_seed(7)
    base = torch.arange(120, dtype=torch.float32).reshape(2, 3, 4, 5)
    convolution = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    state = OrderedDict(convolution.state_dict())
    state["whole"] = base
    state["permuted"] = base.permute(3, 0, 2, 1)
    state["sliced"] = base[:, 1:, ::2, 1:4]
    state["transposed"] = base[1, 2].t()
    state["row"] = base[1, 2, 3]
    state["element"] = base[0, 1, 2, 3]
    state["expanded"] = torch.ones(3, dtype=torch.float16).expand(4, 3)
    state["empty"] = torch.zeros(0, 3, dtype=torch.int8)
    for name in "bool uint8 int16 int32 int64 float64 bfloat16 complex64 complex128".split():
        state[name] = torch.tensor([0, 1, 3]).to(getattr(torch, name))
    torch.save(state, path)
    return state


def read(path):
    state = torch.load(path, weights_only=True)
    again = torch.load(path)
    assert type(state) is OrderedDict and list(state) == list(again)
    assert all(torch.equal(state[name], again[name]) for name in state)
    return state


def elements(tensor):
    tensor = tensor.contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy().tobytes()


work = {"save": save, "read": read}[sys.argv[1]]
for path in sys.argv[2:]:
    for name, tensor in work(path).items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest = hashlib.sha256(elements(tensor)).hexdigest()
        print(json.dumps({"name": name, "dtype": dtype, "shape": list(tensor.shape), "sha256": digest}))
