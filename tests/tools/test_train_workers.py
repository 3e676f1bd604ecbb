"""Several processes of tools/train.py as one run."""

import contextlib
import signal
import socket
import time

import pytest

from official_lrm.training.checkpoint_files import checkpoint_steps
from official_lrm.training.run_lock import run_lock
from tools.run_comparison import compare_runs

TRAIN = "tools/train.py"
LOST = "another worker was lost; start all of them again to go on from the last"


@pytest.fixture
def start_workers(start_tool, train_flags):
    """Returns start(model_dir, **changes) -> two processes."""

    def start(model_dir, **changes):
        with contextlib.ExitStack() as stack:
            servers = [
                stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                for _ in range(2)
            ]
            hosts = [f"127.0.0.1:{s.getsockname()[1]}" for s in servers]
        return [
            start_tool(
                TRAIN,
                *train_flags(
                    task__model__dropout=0.1,
                    trainer__steps_per_loop=2,
                    runtime__distribution_strategy="multi_worker_mirrored",
                    runtime__task_index=index,
                    runtime__worker_hosts="'" + ",".join(hosts) + "'",
                    **changes,
                ),
                f"--model_dir={model_dir}",
                "--deterministic",
            )
            for index in range(2)
        ]

    return start


def wait_for_step(model_dir, step, processes, finish_tool):
    while max(checkpoint_steps(str(model_dir)), default=0) < step:
        for process in processes:
            assert process.poll() is None, finish_tool(process)
        time.sleep(0.05)


def assert_finished(results):
    # Text is shown whole, whatever else is abridged.
    assert [result.status for result in results] == [0, 0], "".join(
        result.stderr for result in results
    )


@pytest.mark.slow
def test_a_lost_worker_loses_nothing(start_workers, finish_tool, tmp_path):
    """Given two workers of which one is killed in the middle, when both are
    started again, then the run ends as one that was left alone: each host's
    memories, every variable and every loss, bit for bit."""
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    results = [
        finish_tool(process)
        for process in start_workers(alone, trainer__train_steps=20)
    ]
    assert_finished(results)

    processes = start_workers(
        killed, trainer__train_steps=20, trainer__max_to_keep=9
    )
    wait_for_step(killed, 6, processes, finish_tool)
    processes[1].kill()
    chief, _ = [finish_tool(process) for process in processes]
    assert chief.status == 1
    assert LOST in chief.stderr.splitlines()[-1]
    results = [
        finish_tool(process)
        for process in start_workers(killed, trainer__train_steps=20)
    ]
    assert_finished(results)

    line = compare_runs(str(alone), str(killed), 20)
    print(line)
    assert ", 8 memories, " in line
    # The chief speaks for both.
    assert "trained model" in results[0].stdout
    assert "train  " not in results[1].stderr


@pytest.mark.slow
def test_sigterm_to_one_worker_stops_all_at_one_step(
    start_workers, finish_tool, tmp_path
):
    processes = start_workers(tmp_path, trainer__train_steps=10**6)
    wait_for_step(tmp_path, 2, processes, finish_tool)
    processes[1].send_signal(signal.SIGTERM)
    results = [finish_tool(process) for process in processes]
    assert_finished(results)
    step = checkpoint_steps(str(tmp_path))[-1]
    assert f"stopped at step {step:,}, which is saved" in results[0].stdout
    for host in range(2):
        name = f"ckpt-{step}.memories-{host:05d}-of-00002.index"
        assert (tmp_path / name).exists()


@pytest.mark.slow
def test_a_worker_tells_of_one_that_was_refused(
    start_workers, finish_tool, tmp_path
):
    with run_lock(str(tmp_path)):
        chief, other = [
            finish_tool(process) for process in start_workers(tmp_path)
        ]
    assert [chief.status, other.status] == [1, 1]
    assert "is being trained by" in chief.stderr.splitlines()[-1]
    assert f"{LOST} checkpoint, none." in other.stderr.splitlines()[-1]
