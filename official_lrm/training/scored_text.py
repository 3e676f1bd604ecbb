"""The text that a figure is of, and how long it is."""

import dataclasses

_TOKENS_AT_ONCE = 2**18


@dataclasses.dataclass(frozen=True)
class ScoredText:
    """What is known of the text whose targets are scored.

    Attributes:
        unit: what a token is: "character", "word" or "piece".
        split: name of the split; "" = not known.
        split_tokens: targets of the whole split; None = not known.
        documents: how many documents are scored; None = not known.
        num_tokens: targets whose text was counted; None = it was not.
        num_bytes: bytes of their text.
        num_words: words of their text; see `measure`.
    """

    unit: str = "character"
    split: str = ""
    split_tokens: int | None = None
    documents: int | None = None
    num_tokens: int | None = None
    num_bytes: int | None = None
    num_words: int | None = None

    @classmethod
    def measure(
        cls,
        cut,
        tokenizer,
        split="",
        split_tokens=None,
        tokens_at_once=_TOKENS_AT_ONCE,
    ):
        r"""Counts the bytes and words of the N - 1 targets of N tokens.

        The text of the targets is what their ids add to that of the first
        token when decoded. Its words are those between ASCII white space and
        one more for each line feed, WikiText's `<eos>`; so a text of words
        has as many words as tokens, and a character model's perplexity per
        word compares with a word model's. A word that the text begins or ends
        in the middle of counts as one.

            before: tokens of b"a cat\n sat"
            after:  targets b" cat\n sat": num_bytes 9, num_words 3

        The bytes are those of the decoded text. Of words these are the words
        as the vocabulary spells them (`<unk>` has five) and one for each
        space or line feed between, not those of the file. Line feeds that are
        no tokens (symbols that skip newlines) are neither bytes nor words,
        and the words beside them count as one.

        Args:
            cut: TokenizedSplit, the first N tokens of the split.
            tokenizer: a TextTokenizer. What more ids decode to begins with
                what fewer decode to.
            split: see the class.
            split_tokens: see the class; None = N - 1.
            tokens_at_once: int, how many are decoded at once.

        Returns:
            ScoredText.
        """
        tokens = cut.tokens
        num_bytes = num_words = 0
        inside_word = False
        for start in range(1, len(tokens), tokens_at_once):
            ids = tokens[start - 1 : start + tokens_at_once]
            # Beside the token before: words get their space from it.
            before = len(tokenizer.decode(ids[:1]))
            text = tokenizer.decode(ids)[before:]
            if not text:
                continue
            num_bytes += len(text)
            num_words += len(text.split()) + text.count(b"\n")
            if inside_word and not text[:1].isspace():
                num_words -= 1  # Cut between two blocks.
            inside_word = not text[-1:].isspace()
        num_tokens = max(len(tokens) - 1, 0)
        return cls(
            unit=tokenizer.unit,
            split=split,
            split_tokens=num_tokens if split_tokens is None else split_tokens,
            documents=count_documents(cut),
            num_tokens=num_tokens,
            num_bytes=num_bytes,
            num_words=num_words,
        )


def count_documents(cut) -> int:
    """Documents with an input: the last token of a text is a target only.

    Args:
        cut: TokenizedSplit.
    """
    return int((cut.document_starts < len(cut.tokens) - 1).sum())
