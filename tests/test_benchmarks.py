"""The commands that measure; how fast anything is, is not tested."""

import csv
import math
from functools import partial

import pytest
import torch
from mmengine.config import Config

from benchmarks import gpu, models, op, tradeoff
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


def test_errors_are_value_errors():
    assert issubclass(BenchmarkError, ValueError)


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
