"""People see what is for them; what libraries say goes to the log file."""

import io
import logging
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub, MMLogger
from mmengine.runner.log_processor import LogProcessor

from mmravlt import config_path
from mmravlt.commands.console import LONGEST, aloud, own_console, say
from mmravlt.commands.screen import downloads, schedule_words, weights_words
from mmravlt.openmmlab.console import ConsoleHook


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def screen(capsys):
    """What has been printed since the last call."""
    return lambda: capsys.readouterr().out


@pytest.fixture
def logger(tmp_path, request):
    """Makes a logger with a file, as a runner does: (logger, what is in the file)."""

    def make():
        path = tmp_path / 'run.log'
        made = MMLogger(request.node.name, log_file=str(path))
        return made, path.read_text

    return make


def speak(module, code):
    """Run code as a module of this name would."""
    exec(code, dict(__name__=module, logging=logging, warnings=warnings))


def test_what_is_printed_goes_to_the_file_in_its_order(screen, logger):
    with own_console():
        print('before the file')
        made, text = logger()
        made.info('of the logger')
        print('between')
        made.info('of the logger again')
        print('to the other stream', file=sys.stderr)
        assert not sys.stdout.isatty()
    print('after it')
    assert screen() == 'after it\n'
    lines = text().splitlines()
    said = [line.rpartition(' - ')[2] for line in lines]
    assert said == [
        *('before the file', 'of the logger', 'between', 'of the logger again'),
        'to the other stream',
    ]


@pytest.mark.parametrize(
    'module,shown',
    [('mmdet.models', ''), ('mmravlt.ops', 'WARNING - one two\n')],
)
@pytest.mark.parametrize(
    'code',
    [
        "warnings.warn('one\\n two', stacklevel=2)",
        "logging.getLogger(__name__).warning('one\\n two')",
    ],
)
def test_only_our_own_warnings_are_shown(module, shown, code, screen, logger):
    with own_console():
        logger()[0].info('begin')
        speak(module, f'for _ in range(2): {code}')
    assert screen() == shown


@pytest.mark.parametrize('module,shown', [('mmdet', False), ('mmravlt.data', True)])
def test_warnings_of_mmengines_logger_are_told_by_who_gives_them(
    module, shown, screen, logger
):
    code = "from mmengine.logging import print_log\nprint_log('one', made, 30)"
    with own_console():
        made, text = logger()
        exec(code, dict(__name__=module, made=made))
        made.info('two')
    assert screen() == ('WARNING - one\n' if shown else '')
    assert 'WARNING - one\n' in text()


def test_weights_that_do_not_fit_are_told(screen, logger):
    with own_console():
        exec("made.warning('misses ' + 'x' * 900)",
             dict(__name__='mmengine.runner.checkpoint', made=logger()[0]))  # fmt: skip
    said = screen()
    assert said.startswith('WARNING - misses xxx')
    assert LONGEST < len(said) < LONGEST + 40
    assert said.endswith('… (the rest is in the log)\n')


@pytest.mark.parametrize('name', ['mmengine', 'other'])
def test_a_faulty_message_of_a_library_ends_nothing(name, screen, logger, monkeypatch):
    monkeypatch.setattr(logging.root, 'handlers', [])  # pytest's raise the fault
    with own_console():
        made, text = logger()
        made.info('begin')
        speaker = made if name == 'mmengine' else logging.getLogger(name)
        speaker.warning('rate', 3)
        print('goes on')
    assert 'Logging error' in text()
    assert text().endswith('goes on\n')


def test_handlers_that_people_add_get_all_messages(screen, logger):
    kept = []

    class Forward(logging.Handler):
        def emit(self, record):
            kept.append(record.getMessage())

    with own_console():
        made, _ = logger()
        made.addHandler(Forward())
        made.info('sent')
    assert kept == ['sent']


def test_tracebacks_of_other_loggers_stand_in_the_log(screen, logger):
    with own_console():
        made, text = logger()
        made.info('begin')
        try:
            raise ValueError('lost')
        except ValueError:
            logging.getLogger('other').exception('upload failed')
    assert screen() == 'ERROR - upload failed\n'
    assert 'ERROR - other - upload failed\nTraceback' in text()
    assert text().endswith('ValueError: lost\n')


@pytest.mark.parametrize('encoding', ['ascii', 'cp1252'])
def test_a_log_that_lacks_letters_ends_nothing(encoding, tmp_path, screen, request):
    made = MMLogger(request.node.name)
    handler = logging.FileHandler(tmp_path / 'run.log', encoding=encoding)
    made.addHandler(handler)
    with own_console():
        made.info('begin')
        print('文')
    assert (tmp_path / 'run.log').read_text().endswith('\\u6587\n')


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no full device')
def test_a_full_disk_under_the_log_ends_nothing(screen, request):
    made = MMLogger(request.node.name)
    made.addHandler(logging.FileHandler('/dev/full'))
    with own_console():
        made.info('begin')
        print('more')
        say('goes on')
    assert screen() == 'goes on\n'


def test_a_program_without_a_console_runs(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', None)
    with own_console():
        say('nobody reads this')


def test_errors_of_all_are_shown_by_every_process(screen, logger, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    with own_console():
        say('not from here')
        logger()[0].error('broken')
        speak('mmravlt.ops', "warnings.warn('odd')")
        with aloud():
            print('nor this')
    assert screen() == 'ERROR - broken\n'


def test_what_is_printed_aloud_reaches_the_console(screen):
    with own_console():
        with aloud():
            print('checked')
        print('unheard')
    assert screen() == 'checked\n'


def test_an_exception_goes_on_and_stands_in_the_log(screen, logger):
    out, warn = sys.stdout, warnings.showwarning
    handlers, call = list(logging.root.handlers), MMLogger.callHandlers
    with pytest.raises(ValueError, match='lost'), own_console():
        made, text = logger()
        made.info('begin')
        raise ValueError('lost')
    assert text().endswith('ValueError: lost\n')
    assert (sys.stdout, warnings.showwarning) == (out, warn)
    assert (logging.root.handlers, MMLogger.callHandlers) == (handlers, call)


class IterBasedLoop(SimpleNamespace):
    pass


class Runner(SimpleNamespace):
    """As much of a runner as is shown: two epochs of three steps."""

    def __init__(self, by_epoch=True, **others):
        hub = MessageHub('console')
        hub.update_scalars({'train/lr': 0.1, 'train/time': 2.0})
        hub.log_scalars['train/loss'] = HistoryBuffer([4.0, 2.0], [1, 1])
        hub.update_info('eta', 61.4)
        loader = range(3)
        super().__init__(
            **dict(epoch=0, iter=0, max_epochs=2, max_iters=6, hooks=[]),
            **dict(message_hub=hub, train_dataloader=loader, val_dataloader=loader),
            log_processor=LogProcessor(),
            train_loop=(SimpleNamespace if by_epoch else IterBasedLoop)(
                stop_training=False
            ),
            **others,
        )


def go(hook, runner, steps=3):
    hook.before_train(runner)
    for i in range(steps):
        runner.iter = i
        hook.after_train_iter(runner, i)
    runner.epoch, runner.iter = 1, steps
    hook.after_val_iter(runner, 0)
    hook.after_val_epoch(runner, dict(mIoU=np.float32(24.1), text='none', count=3))
    hook.after_run(runner)


@pytest.mark.parametrize('by_epoch,place', [(True, 'epoch 1/2'), (False, 'step 3/6')])
def test_without_a_terminal_there_are_plain_lines(by_epoch, place, screen):
    with own_console() as console:
        go(ConsoleHook(console, lambda runner: ['the screen']), Runner(by_epoch))
    where = 'Epoch(train) [1][3/3]' if by_epoch else 'Iter(train) [3/6]'
    assert screen().splitlines() == [
        'the screen',
        f'{where}  0:01:01 left  loss: 3.0000',  # the last step of the epoch
        f'{place}  mIoU: 24.1000  count: 3',
    ]


def test_on_a_terminal_there_is_a_bar_below_what_is_said(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', terminal := Terminal())
    monkeypatch.setenv('TERM', 'xterm')
    with own_console() as console:
        hook = ConsoleHook(console, lambda runner: ['the screen'])
        go(hook, Runner())
    text = terminal.getvalue()
    assert text.startswith('the screen\n')
    assert 'mIoU: 24.1000' in text and '3/6' in text and '0:01:01 left' in text
    assert 'evaluation' in text
    assert text.rindex('\x1b[?25h') > text.rindex('\x1b[?25l')  # the cursor is back


def test_a_run_that_is_interrupted_leaves_the_terminal_as_it_was(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', terminal := Terminal())
    monkeypatch.setenv('TERM', 'xterm')
    with pytest.raises(KeyboardInterrupt), own_console() as console:
        ConsoleHook(console, lambda runner: []).before_train(Runner())
        raise KeyboardInterrupt
    text = terminal.getvalue()
    assert text.rindex('\x1b[?25h') > text.rindex('\x1b[?25l')
    assert sys.stdout is terminal


def test_the_best_score_so_far_and_an_early_end_are_told(screen):
    rows = [dict(score=1), dict(score=2)]
    results = SimpleNamespace(rows=rows, best=rows[1])
    with own_console() as console:
        hook, runner = ConsoleHook(console, lambda runner: [], results), Runner()
        hook.after_val_epoch(runner, dict(score=2.0))
        rows.append(dict(score=1))
        hook.after_val_epoch(runner, dict(score=1.0))
        runner.train_loop.stop_training = True
        hook.after_train(runner)
    assert screen().splitlines() == [
        'epoch 0/2  score: 2.0000  (best so far)',
        'epoch 0/2  score: 1.0000',
        'epoch 0/2  ended early: the score did not improve',
    ]


def test_a_run_goes_on_where_nobody_reads_any_more(monkeypatch):
    class Closed(Terminal):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setenv('TERM', 'xterm')
    for stream in (Closed(), Terminal()):
        monkeypatch.setattr(sys, 'stdout', stream)
        with own_console() as console:
            hook, runner = ConsoleHook(console, lambda runner: ['lines']), Runner()
            if isinstance(stream, Closed):
                console.is_terminal = False
            hook.before_train(runner)
            monkeypatch.setattr(stream, 'write', Closed.write.__get__(stream))
            hook.after_train_iter(runner, 2)
            hook.after_val_epoch(runner, dict(score=1.0))
            hook.after_run(runner)
        assert runner.iter == 0


@pytest.mark.parametrize(
    'name,lengths,words',
    [
        (
            'mmdet/mask_rcnn_ravlt_s_3x.py',
            (36, 360),
            '36 epochs of 10 steps; the rate rises for 500 steps; times 0.1 after '
            'epochs 27 and 33',
        ),
        (
            'mmseg/semantic_fpn_ravlt_t_1x.py',
            (1, 80000),
            '80000 steps; falls with the power 0.9 to 1e-06',
        ),
        (
            'mmseg/upernet_ravlt_s_2x.py',
            (1, 160000),
            '160000 steps; the rate rises for 1500 steps; falls with the power 1 to 0',
        ),
        (
            'mmpretrain/ravlt_t_in1k.py',
            (300, 3000),
            '300 epochs of 10 steps; the rate rises for 6 epochs; falls as a cosine to '
            '1e-05',
        ),
    ],
)
def test_schedules_are_told_in_words(name, lengths, words):
    cfg = Config.fromfile(config_path(name))
    epochs, steps = lengths
    places = dict(max_epochs=epochs, max_iters=steps, iter=0)
    runner = SimpleNamespace(train_dataloader=range(10), **places)
    assert schedule_words(runner, cfg) == words


def test_where_weights_come_from_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    url = 'https://nowhere/RAVLT_T.pth'
    init = dict(type='Pretrained', checkpoint=url)
    cfg = Config(dict(model=dict(backbone=dict(init_cfg=init))))
    assert downloads(cfg) == []  # of a test
    cfg.train_cfg = dict(max_epochs=12)
    assert weights_words(None, cfg) == f'{url}; the rest is random'
    assert downloads(cfg) == [f'downloading {url}']
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'checkpoints/RAVLT_T.pth').touch()
    assert downloads(cfg) == []
    cfg.load_from, cfg.resume = 'epoch_3.pth', True
    assert weights_words(None, cfg) == 'epoch_3.pth, from which the training goes on'
    assert weights_words(None, Config(dict(model=dict()))) == 'random'
