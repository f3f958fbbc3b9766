"""Writes the files that BranchKey's clients let through by their own checks, into the folder named on the command line."""

import os
import sys

import numpy as np

folder = sys.argv[1]
array = np.array([1.0, 2.0], dtype=np.float32)


def npy(name, *items):
    content = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        content[i] = item
    np.save(os.path.join(folder, name), content, allow_pickle=True)


def npz(name, **arrays):
    np.savez_compressed(os.path.join(folder, name), **arrays)


npy("good.npy", 3, [array])
npy("zero.npy", 0, [array])
npy("negative.npy", -1, [array])
npy("huge.npy", 2**70, [array])
npy("beyond.npy", 2**53 + 2, [array])
npy("text-weighting.npy", "3", [array])
npy("bytes-weighting.npy", b"3", [array])
npy("none-weighting.npy", None, [array])
npy("later-text.npy", 3, [array, "text"])
npy("later-none.npy", 3, [array, None])
npy("later-number.npy", 3, [array, 4.0])
npy("later-dict.npy", 3, [array, {"a": array}])
npy("empty.npy", 3, [])
npy("three.npy", 3, [array], 4)
npy("one.npy", 3)
npy("nan-element.npy", 3, [np.array([1, np.nan], dtype=np.float32)])
npy("strings.npy", 3, [np.array(["a", "b"])])
npy("objects.npy", 3, [np.array([1, None], dtype=object)])
npy("dates.npy", 3, [np.array([1, 2], dtype="M8[s]")])
np.save(os.path.join(folder, "plain.npy"), array)

weighting = np.array([3.0])
npz("good.npz", weighting=weighting, layer_0=array)
npz("zero.npz", weighting=np.array([0.0]), layer_0=array)
npz("negative.npz", weighting=np.array([-1.0]), layer_0=array)
npz("nan.npz", weighting=np.array([np.nan]), layer_0=array)
npz("infinite.npz", weighting=np.array([np.inf]), layer_0=array)
npz("huge.npz", weighting=np.array([1e300]), layer_0=array)
npz("text.npz", weighting=np.array(["3"]), layer_0=array)
npz("complex.npz", weighting=np.array([3j]), layer_0=array)
npz("bool.npz", weighting=np.array([True]), layer_0=array)
npz("two.npz", weighting=np.array([3.0, 3.0]), layer_0=array)
npz("missing.npz", layer_0=array)
npz("none.npz", weighting=weighting)
npz("gap.npz", weighting=weighting, layer_0=array, layer_2=array)
npz("from-one.npz", weighting=weighting, layer_1=array)
npz("strings.npz", weighting=weighting, layer_0=np.array(["a", "b"]))
npz("objects.npz", weighting=weighting, layer_0=np.array([1, None], dtype=object))
npz("nan-element.npz", weighting=weighting, layer_0=np.array([np.inf, 1], dtype=np.float32))
npz("scalar.npz", weighting=np.float64(3), layer_0=array)
