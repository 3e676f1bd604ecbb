"""Hugging Face's TransfoXL, one token at a time: `tools/benchmark.py`'s peer.

Runs in an environment of its own, with torch and transformers 4.35. Describes
itself on standard output; then, for each line on standard input, decodes 8
tokens and writes the median of their seconds.
"""

import json
import os
import statistics
import sys
import time

os.environ["TRUST_REMOTE_CODE"] = "True"  # The class is deprecated.

import torch
import transformers

TOKENS = 8


def main():
    sizes = json.loads(sys.argv[1])
    config = transformers.TransfoXLConfig(
        vocab_size=sizes["vocab_size"],
        cutoffs=[],
        d_model=sizes["hidden_size"],
        d_embed=sizes["hidden_size"],
        n_head=sizes["num_heads"],
        d_head=sizes["head_size"],
        d_inner=sizes["inner_size"],
        n_layer=sizes["num_layers"],
        mem_len=sizes["span"],
        div_val=1,
        adaptive=False,
        clamp_len=-1,
        same_length=True,
    )
    model = transformers.TransfoXLLMHeadModel(config).eval()
    memories = model.transformer.init_mems(1)
    tokens = torch.zeros([1, 1], dtype=torch.long)
    print(
        f"transformers {transformers.__version__}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads",
        flush=True,
    )
    with torch.no_grad():
        for _ in sys.stdin:
            seconds = []
            for _ in range(TOKENS):
                start = time.perf_counter()
                outputs = model(tokens, mems=memories)
                memories = outputs.mems
                tokens = outputs.prediction_scores[:, -1:].argmax(-1)
                seconds.append(time.perf_counter() - start)
            print(statistics.median(seconds), flush=True)


if __name__ == "__main__":
    main()
