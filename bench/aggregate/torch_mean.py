"""The mean of files in PyTorch's own format: load one by one, accumulate in place, divide, save; all processors.

The inputs are converted to that format first, and the last result back to an object array, outside of the rounds."""
import os

import numpy as np
import torch
from contend import contend, read_job

torch.set_num_threads(os.cpu_count())
job = read_job()
paths = [item["path"] + ".pt" for item in job["inputs"]]
output = job["output"] + ".pt"
for item, path in zip(job["inputs"], paths):
    weighting, arrays = np.load(item["path"], allow_pickle=True)
    torch.save({"samples": weighting, "state": [torch.from_numpy(array) for array in arrays]}, path)


def work():
    total, sums = 0, None
    for path in paths:
        update = torch.load(path)
        samples, tensors = update["samples"], update["state"]
        if sums is None:
            sums = [tensor.mul_(samples) for tensor in tensors]
        else:
            for into, tensor in zip(sums, tensors):
                into.add_(tensor, alpha=samples)
        total += samples
    for into in sums:
        into.div_(total)
    torch.save({"samples": total, "state": sums}, output)


contend(job, work)
update = torch.load(output)
result = np.empty(2, object)
result[:] = update["samples"], [tensor.numpy() for tensor in update["state"]]
np.save(job["output"], result)
