#!/usr/bin/env python3
"""The tables of gpu-budget.md: operations, bytes and least times of a training step's parts on a GPU, counted.

    gpu_budget.py [TFLOPS [GB_PER_S]]

The two ceilings are those that `tune devices --measure DEVICE` finds: a product of matrices in bf16 (790) and a copy, bytes
read and written together (4300).
"""

import math
import sys
from dataclasses import dataclass

RANK = 16
# Of the ceilings: what a part is expected to reach.
PRODUCT_SHARE, NARROW_SHARE, BYTES_SHARE = 0.6, 0.4, 0.6


@dataclass
class Shape:
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    dim: int
    vocab: int
    head_norms: bool = False

    @property
    def query(self):
        return self.heads * self.dim

    @property
    def key(self):
        return self.kv_heads * self.dim

    def maps(self):
        """Inputs and outputs of a layer's linear maps."""
        into = [(self.hidden, self.query), (self.hidden, self.key), (self.hidden, self.key)]
        return into + [(self.query, self.hidden)] + 2 * [(self.hidden, self.intermediate)] + [(self.intermediate, self.hidden)]

    def weights(self):
        """Of the layers' linear maps."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.maps())


SHAPES = {
    "llama3-8b": Shape(4096, 14336, 32, 32, 8, 128, 128256),
    "qwen3-8b": Shape(4096, 12288, 36, 32, 8, 128, 151936, head_norms=True),
    "llama3-70b": Shape(8192, 28672, 80, 64, 8, 128, 128256),
}


def parts(shape, tokens, again, packed):
    """(name, share of the ceiling, operations, bytes) of a step on one row; `again`: layers run twice; `packed`: NF4."""
    layers, hidden, query, key = shape.layers, shape.hidden, shape.query, shape.key
    forwards = 2 if again else 1
    found = []

    weights = shape.weights()
    passes = forwards + 1
    found.append(("products of the layers", PRODUCT_SHARE, 2 * weights * passes * tokens, 2 * weights * passes))

    inputs = layers * sum(inputs for inputs, _ in shape.maps())
    outputs = layers * sum(outputs for _, outputs in shape.maps())
    # Forward: x read, its share of y written. Backward: the gradient of y read twice, x read, its share of x's written.
    moved = (inputs + outputs) * forwards + 2 * outputs + 2 * inputs
    found.append(("LoRA products", NARROW_SHARE, 2 * RANK * (inputs + outputs) * tokens * (forwards + 2), 2 * tokens * moved))

    # Blocks of queries, each against the keys that one of them sees: kernels/src/attention.rs, block_scores_bytes.
    block = max(64, max(64 << 20, tokens << 15) // (4 * shape.heads * tokens) // 64 * 64)
    seen = tokens * (tokens + block) / 2
    scores = shape.heads * seen
    again_read = seen / block * 2 * key
    by_head = 2 * tokens * (2 * query + 2 * key)
    forward = 16 * scores + 2 * again_read + 2 * by_head
    backward = 26 * scores + 3 * again_read + 16 * again_read + 4 * by_head
    product = 4 * query * seen * layers
    found.append(("attention: products", NARROW_SHARE, product * (forwards + 2.5), 0))
    found.append(("attention: scores", BYTES_SHARE, 0, layers * (forward * forwards + backward)))

    # Rows of the head at a time: whole tiles of 128.
    rows = 128 * math.ceil((128 << 20) / (4 * shape.vocab) / 128)
    logits = tokens * shape.vocab
    head = shape.vocab * hidden
    found.append(("head products", PRODUCT_SHARE, 4 * head * tokens, 4 * head * math.ceil(tokens / rows) + 4 * logits))
    found.append(("loss", BYTES_SHARE, 0, 4 * logits))

    # Values read and written for a token and layer: norms and residual sums, rotation, the gate, norms of heads.
    turned, middle = query + key, shape.intermediate
    forward = 10 * hidden + 2 * turned + 3 * middle + (2 * turned if shape.head_norms else 0)
    backward = 21 * hidden + 2 * turned + 5 * middle + (3 * turned if shape.head_norms else 0)
    # LoRA's share of y and the map's, of x's gradient likewise: both read, their sum written.
    shares = 3 * outputs * forwards + 3 * inputs
    moved = 2 * tokens * (layers * (forward * forwards + backward) + shares)
    found.append(("norms, rotation, gates, sums", BYTES_SHARE, 0, moved))

    if packed:
        found.append(("unpacking NF4", BYTES_SHARE, 0, passes * weights * (0.516 + 2)))
    found.append(("optimizer and norm", BYTES_SHARE, 0, RANK * (inputs + outputs) * (7 * 4 + 4)))
    return found


def table(title, shape, tokens, again, packed, rate, copy):
    print(f"### {title}\n")
    print("| part | TFLOP | GB | bound by | floor ms | expected ms |\n|---|---|---|---|---|---|")
    floors = expectations = 0
    for name, share, operations, moved in parts(shape, tokens, again, packed):
        floor = 1e3 * max(operations / rate, moved / copy)
        floors += floor
        expectations += floor / share
        bound = "products" if operations / rate > moved / copy else "bytes"
        print(f"| {name} | {operations / 1e12:.1f} | {moved / 1e9:.0f} | {bound} | {floor:.1f} | {floor / share:.0f} |")
    print(f"| **all** | | | | **{floors:.0f}** | **{expectations:.0f}** |\n")
    counted = 4 * (shape.weights() + shape.vocab * shape.hidden) / rate
    speeds = [1e3 * tokens / time for time in (floors, expectations)]
    print(f"Floor {speeds[0]:.0f} tokens/s ({100 * speeds[0] * counted:.0f} % of the product rate by 4 operations a weight and "
          f"token), expected {speeds[1]:.0f} tokens/s ({100 * speeds[1] * counted:.0f} %).\n")


def main():
    rate, copy = [float(text) for text in sys.argv[1:] + ["790", "4300"][len(sys.argv) - 1:]]
    for name, adapter, tokens, again in [("llama3-8b", "LoRA", 4096, False), ("qwen3-8b", "LoRA", 4096, False),
                                         ("llama3-8b", "QLoRA", 2048, True), ("llama3-70b", "QLoRA", 2048, True)]:
        kept = "layers run again" if again else "activations kept"
        title = f"{adapter}, {name}, one row of {tokens} tokens, {kept}"
        table(title, SHAPES[name], tokens, again, adapter == "QLoRA", rate * 1e12, copy * 1e9)


if __name__ == "__main__":
    main()
