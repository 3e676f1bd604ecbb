"""A program that answers line by line, in a process of its own."""

import subprocess


class ChildProcess:
    """A program that ends with its standard input; a context manager.

    Attributes:
        first_line: what it says of itself; "" if it ended without a word.
    """

    def __init__(self, *command):
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.first_line = self._read()

    def ask(self, line=""):
        """Returns the line that the program answers to one."""
        print(line, file=self._process.stdin, flush=True)
        return self._read()

    def close(self):
        """Ends it."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _read(self):
        return self._process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
