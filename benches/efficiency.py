"""efficiency.py MODEL METRICS PRODUCTS [--rank 16] [--rows 4] [--skip 2]: how near a LoRA run on the CPU comes to the
machine's products. METRICS is the run's metrics.jsonl, PRODUCTS what `cargo run --release --workspace --example products`
printed on the same machine. Counts the arithmetic that a step needs (a multiplication and an addition are two), and
prints it as a share of what the largest product does in the same time. What is made again for the backward pass counts
as nothing; rows are taken to be of equal length, which counts attention low."""

import argparse, json, re
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("metrics")
parser.add_argument("products")
parser.add_argument("--rank", type=int, default=16)
parser.add_argument("--rows", type=int, default=4)
parser.add_argument("--skip", type=int, default=2)
options = parser.parse_args()

config = json.loads((Path(options.model) / "config.json").read_text())
hidden, intermediate, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
head_dim = config.get("head_dim") or hidden // heads
query, kv = heads * head_dim, kv_heads * head_dim
# in, out
projections = [(hidden, query), (hidden, kv), (hidden, kv), (query, hidden)]
projections += [(hidden, intermediate), (hidden, intermediate), (intermediate, hidden)]
base = sum(inputs * outputs for inputs, outputs in projections)
# Nothing below the first layer's adapters learns, so no gradient goes through its first three weights.
not_needed = hidden * (query + 2 * kv)
low_rank = sum(options.rank * (inputs + outputs) for inputs, outputs in projections)


def work(tokens, trained):
    linear = tokens * (4 * base * layers - 2 * not_needed + 6 * low_rank * layers)
    pairs = tokens * (tokens / options.rows + 1) / 2
    attention = 12 * pairs * query * layers
    return linear + attention + 4 * trained * hidden * config["vocab_size"]


steps = [json.loads(line) for line in Path(options.metrics).read_text().splitlines()]
steps = [step for step in steps if "tokens_per_second" in step][options.skip :]
done = sum(work(step["tokens"], step["trained_tokens"]) for step in steps)
seconds = sum(step["tokens"] / step["tokens_per_second"] for step in steps)
rate = done / seconds / 1e9
tokens = sum(step["tokens"] for step in steps)
print(f"{done / tokens / 1e6:.0f} MFLOP a token, {tokens / seconds:.0f} tokens/s: {rate:.0f} GFLOP/s")
line = Path(options.products).read_text().splitlines()[0]
for kind in ("f32", "bf16"):
    parts = re.findall(rf"{kind} x W(?:\^T)? [0-9]+, ([0-9]+) apart, ([0-9]+) together", line)
    peak = max(int(number) for part in parts for number in part)
    print(f"{rate / peak:.2f} of {peak} GFLOP/s, the product of 2048 x 2048 x 2048 with the second matrix in {kind}")
