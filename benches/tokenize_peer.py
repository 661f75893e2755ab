"""Makes the data of `tokenize.sh`, and prepares it with Hugging Face datasets and tokenizers."""

import json
import resource
import shutil
import sys
import time
from pathlib import Path


def make(source: Path, folder: Path, megabytes: int) -> None:
    """Chat rows out of GSM8K repeated to a size, each with a number of its own, and a tokenizer for them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    rows = [json.loads(line) for line in source.open()]
    folder.mkdir(parents=True, exist_ok=True)
    written, number = 0, 0
    with (folder / f"rows-{megabytes}.jsonl").open("w") as out:
        while written < megabytes << 20:
            row = rows[number % len(rows)]
            messages = [
                {"role": "user", "content": f"{number}. {row['question']}"},
                {"role": "assistant", "content": row["answer"]},
            ]
            written += out.write(json.dumps({"messages": messages}) + "\n")
            number += 1
    if (folder / "tokenizer.json").exists():
        return
    tokenizer = Tokenizer(models.BPE())
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    from tokenizers import Regex

    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=16000, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator((f"{row['question']}\n{row['answer']}" for row in rows), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)


def prepare(folder: Path, data: Path, workers: int) -> None:
    """The usual way: load_dataset, then map with the chat template in batches."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    cache = folder / "hf-cache"
    shutil.rmtree(cache, ignore_errors=True)

    def tokenize(batch):
        encoded = tokenizer.apply_chat_template(
            batch["messages"], return_dict=True, return_assistant_tokens_mask=True, padding=False
        )
        return {"input_ids": encoded["input_ids"], "mask": encoded["assistant_masks"]}

    began = time.time()
    rows = load_dataset("json", data_files=str(data), split="train", cache_dir=str(cache))
    done = rows.map(tokenize, batched=True, num_proc=workers, remove_columns=["messages"])
    seconds = time.time() - began
    tokens = sum(sum(map(len, batch["input_ids"])) for batch in done.iter(1000))
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024
    print(
        json.dumps(
            {
                "rows": len(done),
                "tokens": tokens,
                "seconds": seconds,
                "tokens_per_second": round(tokens / seconds),
                "peak_mib_of_one_process": peak,
                "workers": workers,
            }
        )
    )
    shutil.rmtree(cache, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        prepare(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
