"""Training steps of Hugging Face's TransfoXL: a peer.

Runs in an environment of its own, with torch and transformers 4.35.
"""

import os

os.environ["TRUST_REMOTE_CODE"] = "True"  # The class is deprecated.

import torch
import training_contender
import transformers


def main():
    """Trains on random tokens."""
    sizes = training_contender.workload()
    torch.manual_seed(1)
    config = transformers.TransfoXLConfig(
        vocab_size=sizes.vocab_size,
        cutoffs=[],
        d_model=sizes.hidden_size,
        d_embed=sizes.hidden_size,
        n_head=sizes.num_heads,
        d_head=sizes.head_size,
        d_inner=sizes.inner_size,
        n_layer=len(sizes.spans),
        mem_len=max(sizes.spans),
        div_val=1,
        adaptive=False,
        clamp_len=-1,
        same_length=False,
        dropout=sizes.dropout,
        dropatt=sizes.attention_dropout,
    )
    model = transformers.TransfoXLLMHeadModel(config).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2.5e-4)
    tokens = torch.randint(
        sizes.vocab_size, (sizes.batch_size, sizes.segment_length)
    )
    state = {"memories": model.transformer.init_mems(sizes.batch_size)}

    def step():
        optimizer.zero_grad()
        outputs = model(tokens, mems=state["memories"], labels=tokens)
        state["memories"] = outputs.mems
        outputs.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()

    training_contender.serve(
        step,
        sizes,
        version=f"transformers {transformers.__version__}, "
        f"torch {torch.__version__}",
        parameters=sum(x.numel() for x in model.parameters()),
    )


if __name__ == "__main__":
    main()
