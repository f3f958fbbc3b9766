"""Logistic regression with NumPy, trained by many leaves: what a program has to do for `cambium join`.

    cambium join --credentials leaf.json --format npz -- \
        python3 train.py --in {global} --out {update} --metrics {metrics} --leaf 0

It reads the global model if there is one, trains on the data of its own machine, and writes its update: the arrays as
layer_0, layer_1, ... and how many samples they were trained on.
"""
import argparse
import json
import os

import numpy as np

FEATURES = 8
SAMPLES = 400
STEPS = 25
RATE = 0.5


def make_data(leaf):
    """Stands for the leaf's own data: every leaf sees another part of the space, and nobody sees it all."""
    truth = np.random.default_rng(0).normal(size=FEATURES)
    rng = np.random.default_rng(100 + leaf)
    x = rng.normal(loc=rng.normal(scale=0.7, size=FEATURES), size=(SAMPLES, FEATURES))
    return x, (x @ truth + 0.5 > 0).astype(np.float64)


def predict(x, weights, bias):
    return 1 / (1 + np.exp(-(x @ weights + bias)))


def loss_of(x, y, weights, bias):
    p = np.clip(predict(x, weights, bias), 1e-12, 1 - 1e-12)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


parser = argparse.ArgumentParser()
parser.add_argument("--in", dest="model", required=True)
parser.add_argument("--out", required=True)
parser.add_argument("--metrics", required=True)
parser.add_argument("--leaf", type=int, required=True)
args = parser.parse_args()

x, y = make_data(args.leaf)
if os.path.exists(args.model):
    with np.load(args.model) as arrays:  # no allow_pickle: nothing in a model is executed
        weights, bias = arrays["layer_0"].astype(np.float64), arrays["layer_1"].astype(np.float64)
else:
    weights, bias = np.zeros(FEATURES), np.zeros(1)

before = loss_of(x, y, weights, bias)
accuracy = float(np.mean((predict(x, weights, bias) > 0.5) == y))
for _ in range(STEPS):
    error = predict(x, weights, bias) - y
    weights -= RATE * (x.T @ error) / len(y)
    bias -= RATE * np.mean(error, keepdims=True)
print(f"loss {before:.4f} -> {loss_of(x, y, weights, bias):.4f}")

np.savez(
    args.out,
    weighting=np.array([float(len(y))]),
    layer_0=weights.astype(np.float32),
    layer_1=bias.astype(np.float32),
)
with open(args.metrics, "w") as file:
    json.dump({"mode": "test", "metrics": {"loss": before, "accuracy": accuracy}}, file)
