"""Trains the small network that the demo quantizes, and writes its weights and test images.

    python examples/digits/train.py            needs the extra `train` (scikit-learn)

A 64-128-64-10 perceptron with ReLU on scikit-learn's digits (1797 images of 8x8 pixels, grey
levels 0 to 16). The last 597 images are the test set. With w and b float32 and rows as
outputs, a layer is ``x @ w.T + b``, and its input is the image's 64 pixels divided by 16.

Writes beside this file
    weights.safetensors    fc1.weight (128, 64), fc1.bias (128,), fc2..., fc3.weight (10, 64), ...
    test_images.npz        images, uint8 (597, 8, 8); labels, uint8 (597,)

The seed is fixed and the arithmetic is float64, so a second run writes the same bytes on the
same machine; another BLAS may differ in the last bits of a weight.

The images are the test part of the UCI set "Optical Recognition of Handwritten Digits"
(E. Alpaydin, C. Kaynak, 1998), CC BY 4.0, as scikit-learn distributes it.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
SEED = 0
TEST_IMAGES = 597
SIZES = (64, 128, 64, 10)
EPOCHS = 200
BATCH = 50
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2
PIXEL_NOISE = 0.2  # Of the full grey scale: the test images come from other writers.

Array: TypeAlias = np.ndarray
Parameters: TypeAlias = dict[str, Array]


def initial(rng: np.random.Generator) -> Parameters:
    """He-normal weights and zero biases."""
    parameters = {}
    for layer, (fan_in, fan_out) in enumerate(pairwise(SIZES), start=1):
        scale = np.sqrt(2 / fan_in)
        parameters[f"fc{layer}.weight"] = scale * rng.standard_normal((fan_out, fan_in))
        parameters[f"fc{layer}.bias"] = np.zeros(fan_out)
    return parameters


def forward(parameters: Parameters, x: Array) -> list[Array]:
    """The input of every layer, then the logits."""
    activations = [x]
    layers = len(SIZES) - 1
    for layer in range(1, layers + 1):
        x = x @ parameters[f"fc{layer}.weight"].T + parameters[f"fc{layer}.bias"]
        if layer < layers:
            x = np.maximum(x, 0)
        activations.append(x)
    return activations


def gradients(parameters: Parameters, x: Array, labels: Array) -> Parameters:
    """Of the mean cross-entropy over the batch."""
    *inputs, logits = forward(parameters, x)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    delta = exponentials / exponentials.sum(axis=1, keepdims=True)
    delta[np.arange(len(labels)), labels] -= 1
    delta /= len(labels)
    result = {}
    for layer in range(len(inputs), 0, -1):
        before = inputs[layer - 1]
        result[f"fc{layer}.weight"] = delta.T @ before
        result[f"fc{layer}.bias"] = delta.sum(axis=0)
        delta = (delta @ parameters[f"fc{layer}.weight"]) * (before > 0)
    return result


def train(images: Array, labels: Array) -> Parameters:
    """Adam with decoupled weight decay and a learning rate that falls to zero along a cosine."""
    rng = np.random.default_rng(SEED)
    parameters = initial(rng)
    mean = {name: np.zeros_like(value) for name, value in parameters.items()}
    square = {name: np.zeros_like(value) for name, value in parameters.items()}
    steps = EPOCHS * (len(images) // BATCH)
    step = 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(images))
        noisy = images + PIXEL_NOISE * rng.standard_normal(images.shape)
        for start in range(0, len(images), BATCH):
            batch = order[start : start + BATCH]
            rate = LEARNING_RATE * (1 + np.cos(np.pi * step / steps)) / 2
            step += 1
            x = noisy[batch].reshape(len(batch), -1)
            for name, gradient in gradients(parameters, x, labels[batch]).items():
                mean[name] += 0.1 * (gradient - mean[name])
                square[name] += 0.001 * (gradient**2 - square[name])
                direction = mean[name] / (1 - 0.9**step)
                scale = np.sqrt(square[name] / (1 - 0.999**step)) + 1e-8
                if name.endswith("weight"):
                    parameters[name] *= 1 - rate * WEIGHT_DECAY
                parameters[name] -= rate * direction / scale
    return parameters


def accuracy(parameters: Parameters, images: Array, labels: Array) -> float:
    logits = forward(parameters, images.reshape(len(images), -1))[-1]
    return float((logits.argmax(axis=1) == labels).mean())


def main() -> None:
    digits = load_digits()
    images, labels = digits.images / 16, digits.target
    parameters = train(images[:-TEST_IMAGES], labels[:-TEST_IMAGES])
    weights = {name: value.astype(np.float32) for name, value in parameters.items()}
    save_file(weights, HERE / "weights.safetensors")
    np.savez_compressed(
        HERE / "test_images.npz",
        images=digits.images[-TEST_IMAGES:].astype(np.uint8),
        labels=labels[-TEST_IMAGES:].astype(np.uint8),
    )
    for part, chosen in (("train", slice(-TEST_IMAGES)), ("test", slice(-TEST_IMAGES, None))):
        share = accuracy(weights, images[chosen].astype(np.float32), labels[chosen])
        print(f"{part} accuracy {share:.4f}")


if __name__ == "__main__":
    main()
