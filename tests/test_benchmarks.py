"""The commands that measure; how fast anything is, is not tested."""

import csv
import math
import os
import re
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from benchmarks import compiling, gpu, machine_code, models, op, tradeoff, zoo
from benchmarks.__main__ import main
from benchmarks.errors import BenchmarkError
from benchmarks.measure import (
    MIB,
    Condition,
    Figures,
    Step,
    compare,
    order_of_round,
    paired_ratio,
    peak_bytes,
    resident_in_child,
)
from benchmarks.results import COLUMNS, exponent, file_of, rows_of_size

from .tiny import write_project

ONCE = Condition(runs=1)


def run(*arguments):
    main([*map(str, arguments)], least_runs=1)


def read(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def bytes_of(mebibytes):
    return torch.empty(mebibytes * MIB, dtype=torch.uint8)


def step_of(function, condition=ONCE):
    return Step(function, condition, lambda: ())


def allocate():
    first = bytes_of(10)
    second = bytes_of(20)
    del first
    return second, bytes_of(5)


def make_resident_step(mebibytes):
    return step_of(lambda: torch.ones(mebibytes * MIB, dtype=torch.uint8))


def test_peak_memory_counts_what_is_held_at_one_time():
    assert peak_bytes(step_of(allocate), 'cpu') == 30 * MIB


def test_peak_memory_of_training_includes_gradients_but_not_weights():
    linear = torch.nn.Linear(1024, 1024, bias=False)  # 4 MiB
    x = torch.ones(1, 1024)
    step = Step(
        lambda: linear(x).sum(), Condition(mode='train'), linear.parameters, linear
    )
    peak = peak_bytes(step, 'cpu')
    assert 4 * MIB <= peak < 4.1 * MIB
    assert linear.weight.grad is None


def test_resident_memory_sees_the_pages_of_a_step():
    growth = resident_in_child(partial(make_resident_step, 64))
    assert growth == pytest.approx(64 * MIB, rel=0.1)


@pytest.mark.parametrize('power', [0.5, 1, 2])
def test_exponent_of_a_power_law_is_exact(power):
    points = [(n, 3 * n**power) for n in (10, 20, 50, 100)]
    assert exponent(points) == pytest.approx(power)


def test_exponent_is_fitted_over_the_largest_half_of_the_sizes():
    assert exponent([(1, 7), (2, 7), (10, 10), (20, 20)]) == pytest.approx(1)
    assert exponent([(1, 7)]) is None


def test_every_round_has_all_contestants_and_starts_from_another():
    names = ['a', 'b', 'c']
    rounds = [order_of_round(names, number) for number in range(4)]
    assert all(sorted(order) == names for order in rounds)
    assert [order[0] for order in rounds] == ['a', 'b', 'c', 'a']


def test_contestants_are_interleaved():
    calls = []
    makers = {
        name: partial(step_of, partial(calls.append, name), Condition(runs=3))
        for name in 'ab'
    }
    figures, sentences = compare(makers, Condition(runs=3), 'test')
    # Warm-up of each, three rounds, memory of each.
    assert ''.join(calls) == 'aabb' + 'ab' + 'ba' + 'ab' + 'ab'
    assert [len(figures[name].times) for name in 'ab'] == [3, 3]
    assert not sentences


def test_contestant_out_of_memory_leaves_the_others_in():
    def fail():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    makers = {'large': partial(step_of, fail), 'small': partial(step_of, allocate)}
    figures, sentences = compare(makers, ONCE, '8x8')
    assert sentences == ['8x8: large runs out of memory.']
    large, small = rows_of_size(figures, (8, 8), 4, ONCE)
    assert (large['median_ms'], large['peak_mib'], large['runs']) == ('', '', 0)
    assert small['median_ms'] > 0
    assert (small['ratio'], small['peak_mib']) == ('', 30)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def fail():
        raise RuntimeError('shapes differ')

    with pytest.raises(RuntimeError, match='shapes differ'):
        compare({'broken': partial(step_of, fail)}, ONCE, 'test')


def test_ratio_is_the_median_over_pairs_of_a_round():
    assert paired_ratio([1, 10, 100], [2, 20, 300]) == 2


def test_rows_hold_ratios_to_the_first_contestant():
    figures = {'a': Figures([1, 2, 3], 2 * MIB), 'b': Figures([2, 4, 6], MIB)}
    first, second = rows_of_size(figures, (32, 48), 96, ONCE)
    assert list(first) == COLUMNS
    assert (first['ratio'], first['peak_ratio']) == (1, 1)
    assert (second['median_ms'], second['min_ms'], second['max_ms']) == (4, 2, 6)
    assert (second['ratio'], second['peak_ratio']) == (2, 0.5)


def test_file_is_named_by_its_condition_unless_it_has_a_name(tmp_path):
    assert file_of(None, 'op', 'cpu', '', 'd64').name == 'op_cpu_d64.csv'
    assert file_of(str(tmp_path), 'op', 'cpu') == tmp_path / 'op_cpu.csv'
    assert file_of(str(tmp_path / 'my.csv'), 'op') == tmp_path / 'my.csv'


@pytest.mark.parametrize(
    'name',
    [
        *('ravlt_t', 'ravlt_s_llll', 'release_t', 'release_t_llll', *models.OTHERS),
        *('ravlt_t_optimized', 'ravlt_t_llll_optimized'),
    ],
)
def test_every_backbone_gives_four_maps_of_strides_4_to_32(name):
    maps = models.backbone_step(name, (64, 96), ONCE)()
    shapes = [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(
            models.channels_of(name), (4, 8, 16, 32), strict=True
        )
    ]
    assert [tuple(y.shape) for y in maps] == shapes


@pytest.mark.parametrize(
    'name', ['ravlt_t', 'ravlt_t_cp', 'ravlt_t_selective', 'release_t']
)
def test_training_step_gives_gradients_and_forgets_them(name):
    step = models.backbone_step(name, (64, 64), Condition(mode='train'))
    assert step.model.training
    step()
    assert all(p.grad is not None for p in step.model.parameters())
    step.reset()
    assert all(p.grad is None for p in step.model.parameters())


def test_frozen_norms_keep_batch_statistics():
    condition = Condition(mode='train', frozen_norms=True)
    step = models.backbone_step('resnet_50', (32, 32), condition)
    before = [b.clone() for b in step.model.buffers()]
    step()
    assert all(map(torch.equal, before, step.model.buffers()))


@pytest.mark.parametrize(
    'arguments,words',
    [
        (('backbone', '--models', 'ravlt_x'), ['ravlt_x', 'ravlt_{t,s,b,l}', 'swin_t']),
        (('backbone', '--models', 'release_t_cp'), ['release_t_cp', 'known are']),
        (('backbone', '--models', 'ravlt_t_cp'), ['ravlt_t_cp', '--mode train']),
        (('backbone', '--models', 'ravlt_t', 'ravlt_t'), ['twice']),
        (('op', '--models', 'rela'), ['rela', 'release_rala']),
        (('op', '--head-dim', '30'), ['30', 'multiple of 4']),
        (('model', 'no.py'), ['no.py']),
        (('parts', '--model', 'swin_t'), ['swin_t', 'ravlt']),
        (('parts', '--sizes', '32', '64'), ['one size']),
        (('plot', 'no.csv'), ['no.csv']),
        (('compile', '--head-dims', 30), ['30', '32 to 128']),
        (('backbone', '--runs', '0x'), []),
    ],
)
def test_bad_input_ends_with_one_sentence(arguments, words, capsys):
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    if error.value.code == 2:  # argparse speaks itself
        assert 'no whole number' in capsys.readouterr().err
        return
    message = error.value.code
    assert '\n' not in message
    assert message.startswith('error: ') and message.endswith('.')
    assert all(word in message for word in words)


def test_fewer_than_five_runs_are_refused():
    with pytest.raises(SystemExit, match='at least 5'):
        main(['backbone', '--runs', '4'])


def test_peer_whose_attention_matrix_cannot_fit_is_left_out(monkeypatch):
    monkeypatch.setattr(models, 'available_bytes', lambda: 2**30)
    sentence = models.reason_to_skip('release_t', (2048, 2048), ONCE)
    assert 'release_t is left out' in sentence and '16384×16384' in sentence
    assert models.reason_to_skip('release_t', (224, 224), ONCE) is None
    assert models.reason_to_skip('release_t_llll', (2048, 2048), ONCE) is None
    assert models.reason_to_skip('ravlt_t', (2048, 2048), ONCE) is None


@pytest.mark.parametrize('mode', ['infer', 'train'])
def test_op_writes_ratios_and_the_least_bytes(mode, tmp_path, capsys):
    names = ['rala', 'rala_reference', 'release_rala', 'softmax', 'release_softmax']
    arguments = ('--sizes', '4x6', '8', '--head-dim', 16, '--heads', 2, '--runs', 1)
    run('op', '--mode', mode, '--models', *names, *arguments, '--out', tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name == f'op_{mode}_cpu_float32_sweep_batch1_heads2_d16.csv'
    rows = read(path)
    assert [row['model'] for row in rows] == 2 * [*names, 'least_bytes']
    assert {row['tokens'] for row in rows} == {'24', '64'}
    assert 'passes over N×C' in capsys.readouterr().out


def test_op_that_is_not_installed_has_an_empty_row(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(op, 'FLA', 'no_such_package')
    names = ('rala', 'fla_rala')
    run(
        'op', '--models', *names, '--sizes', 4, '--runs', 1, '--out', tmp_path / 'a.csv'
    )
    assert read(tmp_path / 'a.csv')[1]['median_ms'] == ''
    assert 'fla_rala is left out' in capsys.readouterr().out


def test_ops_of_the_package_and_of_the_peer_agree():
    maps = [
        op.op_step(name, (5, 7), 16, 2, ONCE)()
        for name in ('rala', 'rala_reference', 'release_rala')
    ]
    for other in maps[1:]:
        torch.testing.assert_close(other, maps[0], atol=1e-5, rtol=1e-4)


def test_least_bytes_of_a_forward_pass_are_five_passes():
    condition = Condition(dtype='bfloat16')
    assert op.least_bytes((200, 320), 64, 1, condition) == 5 * 64000 * 64 * 2


def test_backbone_sweep_can_be_plotted(tmp_path, capsys):
    names = ['ravlt_t', 'release_t_llll']
    arguments = ('--sizes', '32x64', '64', '--runs', 1, '--out', tmp_path)
    run('backbone', '--models', *names, *arguments)
    (path,) = tmp_path.iterdir()
    assert path.name == 'backbone_infer_cpu_float32_sweep_batch1.csv'
    rows = read(path)
    assert [row['model'] for row in rows] == 2 * names
    assert [row['tokens'] for row in rows] == ['128', '128', '256', '256']
    assert all(float(row['peak_mib']) > 0 for row in rows)
    assert 'tokens^' in capsys.readouterr().out
    run('plot', path)
    assert path.with_suffix('.png').read_bytes().startswith(b'\x89PNG')


def test_optimize_applies_to_every_ravlt(tmp_path):
    names = ('ravlt_t', 'ravlt_t_optimized', 'release_t')
    with pytest.raises(SystemExit, match='twice'):
        run('backbone', '--optimize', '--models', *names)
    arguments = ('--sizes', 32, '--runs', 1, '--out', tmp_path)
    run('backbone', '--optimize', '--models', *names[1:], *arguments)
    (path,) = tmp_path.iterdir()
    assert path.stem.endswith('_optimized')
    assert [row['model'] for row in read(path)] == ['ravlt_t_optimized', 'release_t']


@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('mode', ['infer', 'train'])
def test_whole_models_run_with_their_own_and_other_backbones(library, mode, tmp_path):
    write_project(tmp_path, library)
    out = tmp_path / 'results'
    arguments = ('--sizes', 64, '--runs', 1, '--out', out, '--mode', mode)
    backbones = ('ravlt', 'release_t')
    run('model', tmp_path / 'config.py', *arguments, '--backbones', *backbones)
    (path,) = out.iterdir()
    assert path.name == f'model_config_{mode}_cpu_float32_64x64_batch1.csv'
    rows = read(path)
    assert [row['model'] for row in rows] == list(backbones)
    assert all(float(row['median_ms']) > 0 for row in rows)


def test_channels_reach_what_reads_the_maps():
    head = dict(in_index=[0, 1, 2, 3], in_channels=[1, 1, 1, 1])
    cfg = Config(dict(decode_head=head, auxiliary_head=dict(in_index=2, in_channels=1)))
    models.set_channels(cfg, (8, 16, 24, 32))
    assert cfg.decode_head.in_channels == [8, 16, 24, 32]
    assert cfg.auxiliary_head.in_channels == 24


@pytest.mark.parametrize('model', ['ravlt_t', 'release_t'])
def test_parts_add_up_to_the_whole(model, tmp_path, capsys):
    run('parts', '--model', model, '--sizes', 32, '--runs', 1, '--out', tmp_path)
    (path,) = tmp_path.iterdir()
    rows = read(path)
    parts = {row['part'] for row in rows}
    assert {'patch_embed', 'downsample', 'extra_norms', 'other'} <= parts
    assert math.isclose(sum(float(row['percent']) for row in rows), 100)
    out = capsys.readouterr().out
    assert '| total ' in out and 'aten::' in out


def test_errors_against_float64_are_those_of_the_type(tmp_path, capsys):
    rows = gpu.errors(str(tmp_path), 'cpu', [(5, 7, 2, 16)])
    assert [row['dtype'] for row in rows] == ['float32', 'bfloat16', 'float16']
    for row, bound in zip(rows, (1e-5, 3e-2, 3e-3), strict=True):
        assert all(0 < float(row[name]) < bound for name in ('y', 'dq', 'dk', 'dv'))
    assert (tmp_path / 'op_errors_cpu.csv').is_file()


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


def test_errors_are_value_errors():
    assert issubclass(BenchmarkError, ValueError)


def write_images(folder, number):
    """Two classes, dark and bright."""
    for split in ('train', 'val'):
        for label, value in (('dark', 60), ('bright', 190)):
            (folder / split / label).mkdir(parents=True)
            for i in range(number):
                image = Image.new('RGB', (20 + i, 16), (value + i, value, value))
                image.save(folder / split / label / f'{i}.png')


SMALL_ZOO = [*('--size', 16, '--batch', 4, '--dim', 16, '--depth', 1, '--heads', 2)]


def test_zoo_trains_kinds_side_by_side(tmp_path, capsys):
    write_images(tmp_path / 'data', 5)
    arguments = ['--data', tmp_path / 'data', '--epochs', 4, '--seeds', 2, *SMALL_ZOO]
    run('zoo', *arguments, '--kinds', 'rala', 'hydra', '--out', tmp_path)
    (path,) = tmp_path.glob('*.csv')
    assert path.name == 'zoo_data_16px_deit_dim16_depth1_patch4_epochs4_batch4.csv'
    rows = read(path)
    names = [(row['kind'], row['seed']) for row in rows]
    assert names == [('rala', '0'), ('hydra', '0'), ('rala', '1'), ('hydra', '1')]
    assert all(row['steps'] == '8' and float(row['seconds']) > 0 for row in rows)
    # The FFN makes up for RALA's gate, but for its bias.
    assert int(rows[0]['params']) == int(rows[1]['params']) + 16 - 8
    printed = capsys.readouterr().out
    top1 = [float(row['top1']) for row in rows if row['kind'] == 'rala']
    line = f'{sum(top1) / 2:.1f} ± {abs(top1[0] - top1[1]) / 2**0.5:.1f}'
    assert re.search(rf'\| rala +\| +0\.\d+ \| +{line} \| +2 \|', printed)


def test_zoo_learns(tmp_path):
    write_images(tmp_path, 8)
    setting = zoo.Setting(epochs=8, batch=4, size=16, dim=16, depth=1, heads=2)
    data = zoo.load(tmp_path, setting)
    assert zoo.train('linear', 0, data, setting, lambda: None)['top1'] == 100


def test_zoo_shows_every_kind_the_same_batches(tmp_path, monkeypatch):
    write_images(tmp_path, 8)
    setting = zoo.Setting(epochs=2, batch=4, size=16, dim=16, depth=1, heads=2)
    data = zoo.load(tmp_path, setting)
    seen, batches = [], zoo.batches

    def watched(*args):
        for images, labels in batches(*args):
            seen.append(images.clone())
            yield images, labels

    monkeypatch.setattr(zoo, 'batches', watched)
    for kind, seed in [('linear', 0), ('focused', 0), ('linear', 1)]:
        zoo.train(kind, seed, data, setting, lambda: None)
    first, second, third = (torch.cat(seen[i : i + 8]) for i in (0, 8, 16))
    assert torch.equal(first, second) and not torch.equal(first, third)


@pytest.mark.parametrize('epochs', [1, 2, 10])
def test_zoo_trains_as_short_as_wanted(tmp_path, epochs):
    write_images(tmp_path, 2)
    setting = zoo.Setting(epochs=epochs, batch=4, size=16, dim=16, depth=1, heads=2)
    row = zoo.train('hydra', 0, zoo.load(tmp_path, setting), setting, lambda: None)
    assert row['steps'] == epochs


@pytest.mark.parametrize(
    'options,message',
    [
        (['--kinds', 'x'], 'there is no attention x; known are softmax, '),
        (['--kinds', 'rala', 'rala'], 'a kind stands twice'),
        (['--dim', 20], '--dim is 20 for 2 heads; give a multiple of 8'),
        (['--patch', 5], '--size is 16 and --patch 5; give a size that'),
        (['--batch', 99], 'has 4 training images, --batch is 99; give a smaller'),
        (['--data', 'nowhere'], 'nowhere/train cannot be used'),
    ],
)
def test_zoo_says_what_is_wrong(tmp_path, options, message):
    write_images(tmp_path, 2)
    with pytest.raises(SystemExit, match=message):
        run('zoo', '--data', tmp_path, *SMALL_ZOO, *options)


def test_zoo_refuses_splits_of_other_classes(tmp_path):
    write_images(tmp_path, 2)
    (tmp_path / 'val/dark').rename(tmp_path / 'val/darker')
    with pytest.raises(BenchmarkError, match='they must be the same'):
        zoo.load(tmp_path, zoo.Setting())


def test_tradeoff_sets_measured_speed_beside_published_accuracy(tmp_path):
    names = ['ravlt_t_in1k', 'resnet18_8xb32_in1k']
    path = tmp_path / 'tradeoff.csv'
    run('tradeoff', '--runs', 1, '--optimize', '--out', path, '--models', *names)
    rows = {row['model']: row for row in read(path)}
    assert {name: (row['family'], row['top1']) for name, row in rows.items()} == {
        'ravlt_t_in1k': ('RAVLT', '82.8'),
        'resnet18_8xb32_in1k': ('ResNet', '69.9'),
        'ravlt_t_in1k_optimized': ('RAVLT, optimised', '82.8'),
    }
    for row in rows.values():
        per_second = 1e3 / float(row['median_ms'])
        assert float(row['images_per_s']) == pytest.approx(per_second, rel=1e-2)
        assert row['device'] and row['batch'] == '1'
    assert rows['ravlt_t_in1k']['top1_source'] == 'its paper'
    assert rows['resnet18_8xb32_in1k']['top1_source'] == 'mmpretrain'
    assert path.with_suffix('.png').stat().st_size > 10_000


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('ravlt_x_in1k', 'there is no classifier ravlt_x_in1k; give one of'),
        ('resnet18_8xb32_in1k_optimized', 'only a RAVLT can be optimised'),
        ('swin-base_3rdparty_in1k-384', 'is of images of another size than 224×224'),
        ('mask_rcnn_ravlt_t_1x', 'no top-1 accuracy on ImageNet-1K is published'),
    ],
)
def test_tradeoff_refuses_what_has_no_place_in_it(name, sentence):
    with pytest.raises(BenchmarkError, match=sentence):
        tradeoff.Classifier(name)


def test_pvt_v2_is_as_large_as_its_authors_say():
    millions = {'pvt_v2_b1': 14.0, 'pvt_v2_b2': 25.4, 'pvt_v2_b5': 82.0}
    for name, expected in millions.items():
        model = tradeoff.Classifier(name).build()
        count = sum(p.numel() for p in model.parameters())
        assert count / 1e6 == pytest.approx(expected, abs=0.06)
