"""The commands for a GPU, and what they can say without one."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from benchmarks import compiling, gpu, machine_code, models

from .test_benchmarks import run


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.parametrize('command', ['gpu', 'gpu-errors'])
def test_gpu_commands_refuse_without_a_gpu(command):
    with pytest.raises(SystemExit, match='PyTorch sees no GPU here'):
        run(command)


def test_parts_of_the_gpu_run_end_with_their_limits(tmp_path, capsys):
    log = tmp_path / 'log'
    log.write_text('')
    assert 'not run' in gpu._run(['true'], 0, log)
    assert gpu._run(['echo', 'hello'], 60, log).startswith('done')
    assert gpu._run(['false'], 60, log).startswith('failed (1)')
    assert log.read_text() == 'hello\n' and 'hello' in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, 'killpg'), reason='needs a POSIX system')
def test_what_a_part_of_the_gpu_run_started_ends_with_it():
    process = subprocess.Popen(
        ['sh', '-c', '(sleep 60; echo late) & wait'],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    gpu._end(process)
    assert process.stdout.read() == b''  # at once, since nothing holds it open


def test_gpu_run_packs_what_it_wrote_although_a_part_failed(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / 'old.csv').write_text('old')
    os.utime(tmp_path / 'old.csv', (0, 0))
    write = [sys.executable, '-c', f'open({str(tmp_path / "new.csv")!r}, "w")']
    parts = [('slow', 9, ['false']), ('quick', 9, write)]
    monkeypatch.setattr(gpu, 'require_gpu', lambda: None)
    monkeypatch.setattr(gpu, 'commands', lambda folder: parts)
    gpu.run_all(str(tmp_path), 60)
    assert 'failed (1)' in capsys.readouterr().out
    with tarfile.open(tmp_path / 'gpu_results.tgz') as tar:
        assert tar.getnames() == ['gpu.log', 'gpu.md', 'new.csv']


def test_parts_of_the_gpu_run_are_commands_that_exist(tmp_path):
    from benchmarks.__main__ import make_parser

    (_, longest, tests), *parts = gpu.commands(tmp_path)
    budget = make_parser().parse_args(['gpu']).budget
    assert longest + sum(seconds for _, seconds, _ in parts) < budget
    assert all((gpu.ROOT / word).exists() for word in tests if '/' in word)
    # The other project's kernels come last, in files of their own.
    titles = [title for title, *_ in parts]
    assert all(title.startswith('fla') for title in titles[-2:])
    for _, seconds, command in parts:
        args = make_parser().parse_args(command[3:])
        assert callable(args.run) and seconds > 0
        if args.command == 'backbone':
            models.check_names(args.models, args.mode)
        assert args.command == 'gpu-errors' or args.device == 'cuda'
        assert Path(args.out).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    'capability,registers,shared,warps,blocks',
    [
        (90, 32, 0, 4, 16),  # 64 warps
        (90, 32, 0, 1, 32),  # blocks
        (86, 32, 0, 1, 16),
        (90, 168, 0, 4, 3),  # 12 warps of 5376 registers
        (90, 168, 0, 8, 1),
        (90, 64, 40960, 4, 5),  # 41 of 228 KiB
        (80, 64, 163 * 1024, 4, 1),
        (120, 64, 99 * 1024 + 1, 4, 0),
    ],
)
def test_blocks_of_a_multiprocessor_are_those_of_the_first_limit(
    capability, registers, shared, warps, blocks
):
    card = compiling.CARDS[capability]
    assert card.resident(registers, shared, warps, 0) == blocks


def test_instructions_of_inner_loops_count_as_often_as_they_run(monkeypatch):
    ttgir = """
    %c0_i32 = arith.constant 0 : i32
    %c32_i32 = arith.constant 32 : i32
    %c96_i32 = arith.constant 96 : i32
    %0 = scf.for %a = %c0_i32 to %n step %c32_i32 {
    }
    %1 = scf.for %b = %first to %last step %splits {
      %2 = scf.for %c = %c0_i32 to %c96_i32 step %c32_i32 {
      }
    }"""
    code = [
        (0x00, 'MOV R1, R2'),
        (0x10, 'LDG R1, [R2]'),  # a loop over chunks
        (0x20, '@P0 BRA 0x10'),
        (0x30, 'IADD3 R1, R1, R2'),  # the loop over tokens
        (0x40, 'BAR.SYNC 0x0'),  # three turns
        (0x50, '@!P1 BRA 0x40'),
        (0x60, 'BAR.SYNC 0x0'),
        (0x70, '@P0 BRA 0x30'),
        (0x80, 'EXIT'),
        (0x90, 'BRA 0x90'),
    ]
    sass = ''.join(f'/*{at:04x}*/  {text} ;\n' for at, text in code)
    monkeypatch.setattr(machine_code, '_cuobjdump', lambda option, cubin: sass)
    assert machine_code.token_loop(b'', ttgir) == (3 + 3 * 2, 1 + 3)


def test_compiler_that_ends_its_process_leaves_the_other_cases_in(monkeypatch):
    compiler = """
import json, sys
for case in json.load(sys.stdin)[1]:
    if case['capability'] == 90:
        sys.exit('LLVM ERROR')
    print(json.dumps({'rows': [{**case, 'error': ''}]}), flush=True)
"""
    monkeypatch.setattr(compiling, 'COMMAND', [sys.executable, '-c', compiler])
    cases = [
        compiling.Case(card, 'float16', 32, 1, 'nchw') for card in (80, 90, 100, 120)
    ]
    kept = []
    rows = compiling.compile_all(cases, 1, lambda rows: kept.append(len(rows)))
    assert [row['capability'] for row in rows] == [80, 90, 100, 120]
    assert ['LLVM ERROR' in row['error'] for row in rows] == [False, True, False, False]
    assert kept == [1, 2, 3, 4]
