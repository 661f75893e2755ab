"""The peer's program without an adapter: full fine-tuning with the same rows, settings and clock.

    python peer_full.py PEER/peft_train.py OPTIONS...     # the options of that program

It hands TRL's SFTTrainer no adapter; with `--plain` its own loop trains the model's weights.
"""
import importlib.util
import sys

spec = importlib.util.spec_from_file_location("peft_train", sys.argv.pop(1))
program = importlib.util.module_from_spec(spec)
spec.loader.exec_module(program)
program.LoraConfig = lambda **_: None
program.get_peft_model = lambda model, _: model
program.main()
