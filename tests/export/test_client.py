"""Tests of export/client.py: text, and the command as operators run it."""

import ast
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from official_lrm.serving import text_stream


class TestText:
    TEXT = "naïve 日本 🎉!"

    def test_a_character_cut_over_calls_is_whole(self, client, connect, server):
        ids = client.tokenize(connect(server), self.TEXT.encode())
        assert ids.tolist() == list(self.TEXT.encode())
        decoder = client.TextDecoder(connect(server))
        parts = [decoder.decode([index]) for index in ids]
        # A byte that does not end a character shows nothing.
        lengths = [len(character.encode()) for character in self.TEXT]
        expected = []
        for character, length in zip(self.TEXT, lengths, strict=True):
            expected += [""] * (length - 1) + [character]
        assert parts == expected
        assert decoder.rest() == ""

    def test_what_is_no_text_is_shown_as_such(self, client, connect, server):
        data = b"a\xff\xe6\x97b\xf0\x9f"
        one = connect(server)
        assert client.tokenize(one, data).tolist() == list(data)
        decoder = client.TextDecoder(one)
        found = "".join(decoder.decode([index]) for index in data)
        assert found + decoder.rest() == data.decode(errors="replace")
        assert decoder.rest() == ""

    def test_nothing_is_nothing(self, client, connect, server):
        one = connect(server)
        assert client.TextDecoder(one).decode([]) == ""
        assert client.tokenize(one, b"").tolist() == []

    def test_words_are_the_same_however_they_are_cut(
        self, client, connect, service, of_words
    ):
        tokenizer = of_words.tokenizer
        ids = tokenizer.encode("the mät\n\ncat on the".encode()).tolist()
        # The last three stand for nothing.
        unknown = list(range(tokenizer.vocab_size, tokenizer.vocab_size + 3))
        ids = [*ids[:3], *unknown[:2], *ids[3:], unknown[2]]
        expected = text_stream._Decoder(tokenizer).decode(ids)
        assert expected.count("\ufffd") == 3
        with service.PredictionServer({"lrm": of_words.folder}) as server:
            one = connect(server)
            for size in (1, 2, 3, len(ids)):
                decoder = client.TextDecoder(one)
                found = "".join(
                    decoder.decode(ids[start : start + size])
                    for start in range(0, len(ids), size)
                )
                assert found + decoder.rest() == expected

    def test_other_errors_are_no_missing_ids(self, client, connect, server):
        one = connect(server)
        decoder = client.TextDecoder(one)
        with pytest.raises(client.ClientError, match="got values"):
            decoder.decode([2**31])


class TestCommand:
    @pytest.fixture
    def run(self, client, server, capsys):
        """Runs the command; returns (status, stdout, stderr)."""

        def call(*arguments, server=server):
            status = client.main(
                ["client.py", f"--server={server.address}", *arguments]
            )
            out, err = capsys.readouterr()
            return status, out, err

        return call

    @pytest.fixture
    def refused(self, run):
        """Runs what must fail; returns the one line of its error."""

        def call(*arguments, **kwargs):
            status, out, err = run(*arguments, **kwargs)
            assert status == 1
            assert out == ""
            assert err.startswith("client.py: error: ")
            assert err.count("\n") == 1
            return err.removeprefix("client.py: error: ").rstrip("\n")

        return call

    def test_it_writes_what_the_process_writes(self, run, of_bytes, tmp_path):
        prompt = "naïve 日本 ".encode()
        sampling = {
            "max_new_tokens": 41,
            "temperature": 0.7,
            "top_k": 53,
            "top_p": 0.9,
            "seed": -7,
            "tokens_per_call": 3,
        }
        expected = io.StringIO()
        text_stream.write_text(
            of_bytes.generator,
            of_bytes.tokenizer,
            prompt,
            expected,
            **sampling,
        )
        given = [f"--{name}={value}" for name, value in sampling.items()]
        file = tmp_path / "prompt"
        file.write_bytes(prompt)
        for prompt_flag in (
            f"--prompt={prompt.decode()}",
            f"--prompt_file={file}",
        ):
            status, out, err = run(
                prompt_flag, "--prompt_tokens_per_call=5", *given
            )
            assert (status, err) == (0, "")
            assert out == expected.getvalue()

    def test_tokens_in_and_out(self, run, of_bytes):
        new = of_bytes.generator.stream([3, 5, 7], 13, temperature=0.9)
        tokens = [3, 5, 7, *np.concatenate(list(new)).tolist()]
        arguments = ["--tokens=3,5,7", "--max_new_tokens=13"]
        for more in ([], ["--state=carried", "--tokens_per_call=4"]):
            status, out, err = run(*arguments, "--temperature=0.9", *more)
            assert (status, err) == (0, "")
            assert out == ",".join(map(str, tokens)) + "\n"
        stop = tokens[6]
        assert stop not in tokens[3:6]
        _, out, _ = run(*arguments, "--temperature=0.9", f"--stop_token={stop}")
        assert out == ",".join(map(str, tokens[:7])) + "\n"

    def test_resident_state(self, run, session_server, recorded, make_toy):
        with recorded(session_server) as calls:
            status, out, _ = run(
                "--tokens=2,3", "--max_new_tokens=19", server=session_server
            )
        assert status == 0
        expected = [2, 3, *make_toy().write([2, 3], 19)]
        assert out == ",".join(map(str, expected)) + "\n"
        names = [request.model_spec.signature_name for request, _ in calls]
        assert names == ["session_generate"] * 2 + ["session_end"]

    def test_describe(self, run, server, session_server):
        status, out, _ = run("--describe")
        assert status == 0
        lines = out.splitlines()
        assert lines[0] == f"lrm at {server.address}, version 1"
        where = lines.index("score")
        assert lines[where + 1 : where + 6] == [
            "  in  memory_00 float [?, 5, 10]",
            "  in  memory_02 float [?, 11, 10]",
            "  in  position int32 [?]",
            "  in  targets int32 [?, ?]",
            "  in  tokens int32 [?, ?]",
        ]
        assert lines[-1] == "carried: 644 bytes a lane, to and fro at each call"
        _, out, _ = run("--describe", server=session_server)
        assert "carried" not in out
        assert out.splitlines()[-1] == (
            "resident: a session id and a position instead"
        )

    def test_stats(self, run):
        status, _, err = run("--tokens=3,5", "--max_new_tokens=17", "--stats")
        assert status == 0
        calls, rate = err.splitlines()
        number = r"[\d,.]+"
        assert re.fullmatch(
            rf"generate: 2 calls, {number} bytes sent and {number} received a "
            rf"call; round trip p50 {number} ms, p99 {number} ms",
            calls,
        )
        assert re.fullmatch(rf"{number} tokens/s", rate)
        status, out, err = run("--tokens=3", "--max_new_tokens=0", "--stats")
        assert (status, out, err) == (0, "3\n", "")

    def test_rest(self, run, server, service, rest_service, of_bytes):
        fresh = of_bytes.model.initial_memories(1)
        tokens = np.array([[3, 5]], "int32")
        logits = np.array(of_bytes.model(tokens, fresh)[0])[0, -1]
        with rest_service.RestServer(server, service.ServiceError) as rest:
            status, out, _ = run(f"--rest={rest.url}", "--tokens=3,5")
        assert status == 0
        head, *rows = out.splitlines()
        assert head == "token logit"
        found = [
            (int(token), float(logit)) for token, logit in map(str.split, rows)
        ]
        best = np.argsort(-logits)[:5].tolist()
        assert [token for token, _ in found] == best
        for token, logit in found:
            assert logit == pytest.approx(logits[token], abs=1e-4)

    def test_help(self, run):
        status, out, _ = run("--help")
        assert status == 0
        assert "--prompt_tokens_per_call" in out
        assert "--[no]describe" in out

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--promt=a"], "Unknown command line flag 'promt'"),
            (["--tokens=1", "x"], "takes flags only (--name=value); got x"),
            (["--top_p=2", "--tokens=1"], "flag --top_p=2"),
            ([], "give one of --prompt, --prompt_file and --tokens."),
            (["--prompt=a", "--tokens=1"], "give one of --prompt, --prompt_fi"),
            (["--tokens=1,b"], "--tokens must be integers separated by commas"),
            (["--prompt="], "the prompt must hold at least one token."),
            (["--prompt_file=gone"], "[Errno 2] No such file"),
            (["--model=nmt", "--tokens=1"], "NOT_FOUND: nmt at "),
            (["--state=resident", "--tokens=1"], "INVALID_ARGUMENT: lrm at "),
            (["--rest=http://localhost:1"], "--rest needs --tokens."),
            (["--rest=localhost", "--tokens=1"], "unknown url type"),
        ],
    )
    def test_mistakes_are_one_line(self, refused, arguments, expected):
        assert refused(*arguments).startswith(expected)

    def test_a_line_that_was_begun_is_ended(self, run):
        status, out, err = run("--tokens=7,256")
        assert (status, out) == (1, "7,256\n")
        assert re.fullmatch(
            r"client.py: error: INVALID_ARGUMENT: lrm at \S+, generate: "
            r"assertion failed: \[tokens must be from 0 to 255; .*\n",
            err,
        )

    def test_no_server(self, refused, unused_port):
        nobody = types.SimpleNamespace(address=f"localhost:{unused_port}")
        message = refused("--tokens=1", "--retries=0", server=nobody)
        assert message.startswith(f"UNAVAILABLE: lrm at {nobody.address}: ")

    def test_no_tokenizer(self, refused, session_server):
        message = refused("--prompt=a", server=session_server)
        assert message == "the export has no tokenizer: give --tokens."

    def test_an_interrupt(self, run, server):
        def around(request, answer):
            # Ctrl-C while the client waits; it is the main thread.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            return answer()

        server.around = around
        try:
            status, _, err = run("--tokens=1")
        finally:
            server.around = None
        assert (status, err) == (130, "client.py: interrupted\n")


class TestStandingAlone:
    FILES = ("client.py", "client_calls.py", "client_sessions.py")

    def test_it_imports_nothing_of_the_repository(self, client_path):
        roots = set()
        for name in self.FILES:
            tree = ast.parse((client_path.parent / name).read_text("utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    roots |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    assert not node.level
                    roots.add(node.module.split(".")[0])
        roots -= set(sys.stdlib_module_names)
        assert roots == {
            "absl",
            "client_calls",
            "client_sessions",
            "grpc",
            "numpy",
            "tensorflow",
            "tensorflow_serving",
        }

    def test_copied_elsewhere_it_runs(
        self, client_path, server, of_bytes, tmp_path
    ):
        for name in self.FILES:
            shutil.copy(client_path.parent / name, tmp_path / name)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name != "PYTHONPATH"
        }

        def run(*arguments):
            return subprocess.run(
                [sys.executable, "client.py", *arguments],
                cwd=tmp_path,
                env={**environment, "PYTHONIOENCODING": "utf-8"},
                capture_output=True,
                encoding="utf-8",
                timeout=600,
            )

        result = run(f"--server={server.address}", "--prompt=né", "--seed=5")
        assert result.returncode == 0, result.stderr
        expected = io.StringIO()
        text_stream.write_text(
            of_bytes.generator,
            of_bytes.tokenizer,
            "né".encode(),
            expected,
            max_new_tokens=300,
            temperature=0.8,
            seed=5,
        )
        assert result.stdout == expected.getvalue()
        result = run("--promt=a")
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert result.stderr.splitlines()[-1].startswith("client.py: error: ")
