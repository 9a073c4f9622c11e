"""Start programs in processes of their own, as users do."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import mmravlt

ROOT = Path(mmravlt.__file__).parents[1]
TOOLS = ROOT / 'tools'
# What `python` means to a shell script; one thread is the fastest for tiny models.
ENVIRONMENT = {
    'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
    'OMP_NUM_THREADS': '1',
}

# Most of a small run is the import of these libraries. Processes are forked from one
# that has imported them and done nothing else; where that is not possible, each
# imports them anew.
if os.name == 'posix':
    _CONTEXT = multiprocessing.get_context('forkserver')
    _LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')
    _CONTEXT.set_forkserver_preload(
        [
            *('mmravlt', *(f'{library}.apis' for library in _LIBRARIES)),
            f'{__package__}.quick_configs',
        ]
    )
else:
    _CONTEXT = multiprocessing.get_context('spawn')


def run_program(*words, check=True, env=None, **options) -> subprocess.CompletedProcess:
    """Run a program from its start.

    Args:
        words: the program and its arguments; what is no string becomes one.
        check (bool): fail with what it printed, where it ends with an error.
        env (dict): environment variables beside those of this process.
        options: of ``subprocess.run``, such as ``cwd``.

    Returns:
        CompletedProcess: with ``returncode``, and ``stdout`` and ``stderr`` as text.
    """
    done = subprocess.run(
        list(map(str, words)),
        env={**os.environ, **ENVIRONMENT, **(env or {})},
        capture_output=True,
        text=True,
        **options,
    )
    return _checked(done) if check else done


def run_python(*words, **options) -> subprocess.CompletedProcess:
    """:func:`run_program` with a Python that has nothing imported."""
    return run_program(sys.executable, *words, **options)


def run_tool(name, *words, cwd, check=True) -> subprocess.CompletedProcess:
    """Run ``tools/NAME`` in the folder ``cwd``; the rest as :func:`run_program`.

    It finds the libraries imported already, so what they read of the environment when
    they are imported is not that of the test, and configs are printed as MMEngine
    writes them, without a layout. Commands of the README start from nothing, in their
    own test.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / stream for stream in ('stdout', 'stderr')]
        process = start_tool(name, *words, cwd=cwd, files=files)
        process.join()
        texts = [file.read_text() if file.exists() else '' for file in files]
    done = subprocess.CompletedProcess([name, *words], process.exitcode, *texts)
    return _checked(done) if check else done


def start_tool(name, *words, cwd, files=(os.devnull, os.devnull)):
    """Start ``tools/NAME``, which writes its two streams to ``files``.

    Returns:
        multiprocessing.Process: that can be waited for, and killed.
    """
    words = [str(TOOLS / name), *map(str, words)]
    environment = {**os.environ, **ENVIRONMENT}
    process = _CONTEXT.Process(target=_become, args=(words, cwd, files, environment))
    process.start()
    return process


def _become(words, folder, files, environment):
    """Make this process the one that runs a tool."""
    for stream, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    from . import quick_configs  # noqa: F401  (for this process alone)

    multiprocessing.set_start_method(None, force=True)  # as in a program just started
    torch.set_num_threads(1)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = words
    runpy.run_path(words[0], run_name='__main__')


def _checked(done):
    said = done.stdout[-3000:] + done.stderr[-3000:]
    assert done.returncode == 0, f'{done.args}\n{said}'
    return done
