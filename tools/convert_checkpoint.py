r"""Converts a published Transformer-XL checkpoint into a preset.

    python tools/convert_checkpoint.py --source=huggingface \
        --checkpoint=transfo-xl-wt103 --output=presets/wt103 \
        --vocabulary=vocab.txt
    python tools/convert_checkpoint.py --source=huggingface \
        --checkpoint=transfo-xl-wt103 --output=presets/wt103_lrm03 \
        --num_long=3 --placement=last --long=1600 --short=128
    python tools/convert_checkpoint.py --source=tf1 \
        --checkpoint=enwik8/model.ckpt-0 --config=enwik8/flags.json \
        --output=presets/enwik8 --vocabulary=symbols.txt --tokenizer=symbols

huggingface: a folder with config.json and model.safetensors, as
TransfoXLLMHeadModel.save_pretrained writes it, or pytorch_model.bin, which
needs PyTorch. tf1: a checkpoint of the TensorFlow reference of Dai et al.;
--config is a JSON file with its flags (n_token, n_layer, d_model, d_embed,
n_head, d_head, d_inner, cutoffs, div_val, untie_r, mem_len, clamp_len,
same_length, proj_share_all_but_first, ...).

Every tensor is used once, or is another name of one that is used and equal to
it, or is skipped for a reason that is printed; anything else is an error. No
pickle is loaded. The spans can be changed at any later time as well: weights
do not depend on them.
"""

from absl import flags

from official_lrm import command_line

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "source", None, ["huggingface", "tf1"], "Where the checkpoint is from."
)
flags.DEFINE_string(
    "checkpoint", None, "The folder, or the prefix of a TF checkpoint."
)
flags.DEFINE_string("config", None, "For tf1: JSON file with the run's flags.")
flags.DEFINE_string("output", None, "Folder of the preset, a new one.")
flags.DEFINE_string(
    "vocabulary",
    None,
    "Text file with one token a line in the order of the ids, from which the "
    "preset gets its tokenizer.",
)
flags.DEFINE_enum(
    "tokenizer",
    "words",
    ["words", "symbols"],
    "What the lines of --vocabulary are: words (<eos> is a line's end, <unk> "
    "an unknown word), or the numbers of bytes, as enwik8's are written.",
)
flags.DEFINE_bool(
    "attend_to_empty",
    True,
    "Whether memory that was never written is seen as zero vectors, as Hugging "
    "Face and the TensorFlow reference do; the PyTorch reference starts "
    "without memory.",
)
flags.DEFINE_bool("dry_run", False, "Convert and check, but write nothing.")
command_line.define_spans_flags("mem_len of the checkpoint's config")


def main():
    """Converts, prints what became of each tensor, and writes the preset."""
    for name in ("source", "checkpoint"):
        if not FLAGS[name].value:
            raise ValueError(f"--{name} must be given; see --help.")
    if bool(FLAGS.output) == FLAGS.dry_run:
        raise ValueError("give either --output or --dry_run.")
    spans, arrangement = command_line.chosen_spans()

    from official_lrm.checkpoints import convert_checkpoint

    convert_checkpoint(
        FLAGS.source,
        FLAGS.checkpoint,
        output=FLAGS.output,
        config=FLAGS.config,
        vocabulary=FLAGS.vocabulary,
        tokenizer=FLAGS.tokenizer,
        spans=spans,
        arrangement=arrangement,
        attend_to_empty=FLAGS.attend_to_empty,
    )


if __name__ == "__main__":
    command_line.run(main)
