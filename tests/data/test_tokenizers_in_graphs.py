"""Every tokenizer on any text, in Python and in graphs."""

import random

import numpy as np
import pytest
import tensorflow as tf

from official_lrm.data import (
    TOKENIZER_TYPES,
    ByteTokenizer,
    SentencePieceTokenizer,
    SymbolTokenizer,
    WordTokenizer,
)

WORDS = b"the cat sat on n\xc3\xa9 mat \xe6\x97\xa5\xe6\x9c\xac".split()
LEARNT = b" ".join(WORDS * 3) + b" <unk> \n"
# Bytes of which trouble is made: what is between words, ends a line or a
# string, is part of a character, and what the tokenizers write themselves.
TROUBLE = [
    *(bytes([value]) for value in b" \t\n\r\x0b\x0c\x1c\0\x01\x02\x85\xff"),
    *(bytes([value]) for value in "é日🙂\u2581\u2028\u00a0".encode()),
    *("\u2581 \ufffd é 日 <eos> <unk> <s> <0x0A>".encode().split()),
    *WORDS,
]
LINES = [
    b"",
    b"\n",
    b" ",
    b"the cat",
    b"the cat\r\nsat\r\n",
    b"\0the\0cat \0",
    b"the cat\nno end",
    b"\xff\xfe n\xc3",
]


def random_texts(count, seed=13):
    """Half of them any bytes, half made of TROUBLE."""
    rng = random.Random(seed)
    texts = list(LINES)
    while len(texts) < count:
        texts.append(rng.randbytes(rng.randrange(41)))
        parts = rng.choices(TROUBLE, k=rng.randrange(29))
        texts.append(b"".join(parts))
    return texts


@pytest.fixture(scope="module")
def tokenizers():
    symbols = bytes(random.Random(3).sample(range(256), 256))
    made = (
        ByteTokenizer(),
        SymbolTokenizer(symbols),
        WordTokenizer.learn([LEARNT]),
        SentencePieceTokenizer.learn([LEARNT], 290),
    )
    assert tuple(tokenizer.type for tokenizer in made) == TOKENIZER_TYPES
    return {tokenizer.type: tokenizer for tokenizer in made}


@pytest.fixture(params=TOKENIZER_TYPES)
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


def replaced(text):
    """A text with each byte that is part of no character as U+FFFD."""
    # A byte that is no character comes back as half of a surrogate pair.
    decoded = text.decode("utf-8", errors="surrogateescape")
    return "".join(
        "\ufffd" if "\udc80" <= character <= "\udcff" else character
        for character in decoded
    ).encode()


@pytest.mark.parametrize("kind", ["bytes", "symbols", "sentencepiece"])
def test_any_text_comes_back(tokenizers, kind):
    tokenizer = tokenizers[kind]
    for text in random_texts(1000):
        ids = tokenizer.encode(text)
        assert ids.dtype == tokenizer.id_dtype
        kept = replaced(text) if kind == "sentencepiece" else text
        assert tokenizer.decode(ids) == kept


def test_words_of_any_text_come_back(tokenizers):
    tokenizer = tokenizers["words"]
    vocabulary = set(WORDS)
    unknown_words = 0
    for text in random_texts(1000):
        lines = text.split(b"\n")
        expected = b"\n".join(
            b" ".join(
                word if word in vocabulary else b"<unk>"
                for word in line.replace(b"<eos>", b"<unk>").split()
            )
            for line in lines
        )
        ids = tokenizer.encode(text)
        decoded = tokenizer.decode(ids)
        if b"<eos>" not in text:
            assert decoded == expected
        unknown_words += decoded.count(b"<unk>")
        assert tokenizer.encode(decoded).tolist() == ids.tolist()
    assert unknown_words > 1000


def test_units_are_those_of_the_figures(tokenizers):
    units = {kind: tokenizer.unit for kind, tokenizer in tokenizers.items()}
    assert units == {
        "bytes": "character",
        "symbols": "character",
        "words": "word",
        "sentencepiece": "piece",
    }


class TestGraph:
    """The same ids and the same texts as in Python."""

    @pytest.fixture(scope="class")
    def texts(self):
        return random_texts(1000)

    @pytest.fixture(scope="class")
    def expected(self, tokenizers, texts):
        """kind -> ids of all texts, and what these decode to."""
        return {
            kind: (
                [tokenizer.encode(text).tolist() for text in texts],
                [tokenizer.decode(tokenizer.encode(text)) for text in texts],
            )
            for kind, tokenizer in tokenizers.items()
        }

    def check(self, encode, decode, texts, expected):
        ids = encode(tf.constant(texts))
        assert ids.dtype == tf.int32
        assert ids.ragged_rank == 1
        assert ids.to_list() == expected[0]
        decoded = decode(ids)
        assert decoded.shape == (len(texts),)
        assert decoded.numpy().tolist() == expected[1]

    def test_in_eager_mode(self, tokenizer, texts, expected):
        self.check(
            tokenizer.encode_tensor,
            tokenizer.decode_tensor,
            texts,
            expected[tokenizer.type],
        )

    def test_in_a_function(self, tokenizer, texts, expected):
        ragged = tf.RaggedTensorSpec([None, None], tf.int32)
        encode = tf.function(
            tokenizer.encode_tensor,
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        decode = tf.function(tokenizer.decode_tensor, input_signature=[ragged])
        self.check(encode, decode, texts, expected[tokenizer.type])

    def test_first_in_a_data_set(self, tokenizer, texts, expected):
        # Given a tokenizer that has made no table or model yet,
        fresh = type(tokenizer).__new__(type(tokenizer))
        fresh.__dict__.update(tokenizer.__dict__)
        for name in ("_table", "_tokenizer"):
            if name in fresh.__dict__:
                fresh.__dict__[name] = None
        # when a data set's function is the first to ask for it,
        dataset = tf.data.Dataset.from_tensor_slices(texts).batch(101)
        dataset = dataset.map(fresh.encode_tensor, num_parallel_calls=2)
        dataset = dataset.map(lambda ids: (ids, fresh.decode_tensor(ids)))
        ids, decoded = [], []
        for some_ids, some_texts in dataset:
            ids += some_ids.to_list()
            decoded += some_texts.numpy().tolist()
        assert (ids, decoded) == expected[tokenizer.type]
        # then it has it outside as well.
        assert fresh.encode_tensor(texts).to_list() == ids

    def test_python_goes_on_while_a_graph_is_traced(self, tokenizer):
        expected = tokenizer.encode(b"the cat").tolist()

        @tf.function
        def function():
            return tf.constant(tokenizer.encode(b"the cat").tolist())

        assert function().numpy().tolist() == expected

    def test_no_texts(self, tokenizer):
        ids = tokenizer.encode_tensor(tf.constant([], tf.string))
        assert ids.shape.as_list() == [0, None]
        assert tokenizer.decode_tensor(ids).shape == (0,)

    @pytest.mark.parametrize("shape", [[], [1, 1]])
    def test_texts_have_one_dimension(self, tokenizer, shape):
        with pytest.raises(tf.errors.InvalidArgumentError, match="shape"):
            tokenizer.encode_tensor(tf.fill(shape, "a"))

    @pytest.mark.parametrize("jit", [False, True], ids=["eager", "function"])
    @pytest.mark.parametrize("wrong", [-1, 10**6])
    def test_what_is_no_id_is_refused(self, tokenizer, jit, wrong):
        decode = tokenizer.decode_tensor
        if jit:
            decode = tf.function(decode)
        last = tokenizer.vocab_size - 1
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            decode(tf.ragged.constant([[0], [last, wrong]], dtype=tf.int32))
        assert f"ids must be from 0 to {last}; got" in caught.value.message
        assert str(wrong) in caught.value.message

    @pytest.mark.parametrize(
        "tokenizer", [SymbolTokenizer(b"a \xff"), ByteTokenizer(98)], ids=repr
    )
    @pytest.mark.parametrize("jit", [False, True], ids=["eager", "function"])
    def test_a_byte_that_has_no_id_is_refused(self, tokenizer, jit):
        encode = tokenizer.encode_tensor
        if jit:
            encode = tf.function(encode)
        assert encode(tf.constant(["a a"])).shape == (1, None)
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            encode(tf.constant(["a a", "aéa"]))
        message = caught.value.message
        assert (
            f"text must hold the {tokenizer.vocab_size} symbols of the "
            "vocabulary only; got byte"
        ) in message
        assert "195" in message


def test_a_line_of_a_megabyte(tokenizers):
    line = b"the cat sat on it " * 2**16
    assert len(line) > 2**20
    for tokenizer in tokenizers.values():
        ids = tokenizer.encode(line)
        decoded = tokenizer.decode(ids)
        if tokenizer.type == "words":
            assert ids.size == len(line.split())
            np.testing.assert_array_equal(tokenizer.encode(decoded), ids)
        else:
            assert decoded == line
