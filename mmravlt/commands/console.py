"""Show people what is for them; all that libraries say goes to the log file of the run.

Nothing slow is imported here.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import (
    ExitStack,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

# Whose frames stand between who gives a message and us
_CARRIERS = ('logging', 'warnings', 'mmengine.logging.logger', __name__)

# Its warnings say which weights were not loaded
_LOADS_WEIGHTS = 'mmengine.runner.checkpoint'

LONGEST = 500  # characters of a warning that are shown

_current: Console | None = None


class Console:
    """What people see, from the first one of several processes.

    Args:
        stream (TextIO): where it is printed.

    Attributes:
        is_terminal (bool): whether a bar can live there.
        bar (Progress | None): of rich, below all that is said; whoever sets it starts
            it.
        has_log (bool): whether there is a file with the rest.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_terminal = (
            is_first()
            and stream is not None  # of a program without a console
            and stream.isatty()
            and os.environ.get('TERM') != 'dumb'
        )
        self.bar: Progress | None = None
        self.has_log = False
        self._warned: set[str] = set()

    def say(self, *lines: str) -> None:
        """Print lines, from the first one of several processes."""
        if is_first():
            self._print(*lines)

    def _print(self, *lines: str) -> None:
        for line in lines:
            with suppress(OSError):  # a run goes on where nobody reads any more
                if self.bar is None:
                    print(line, file=self.stream, flush=True)
                else:
                    plain = dict(markup=False, highlight=False, emoji=False)
                    self.bar.console.print(line, soft_wrap=True, **plain)

    def warn(self, level: str, text: str) -> None:
        """Print a warning or an error in one line, once."""
        line = f'{level} - {" ".join(text.split())}'
        if len(line) > LONGEST:
            rest = ' (the rest is in the log)' * self.has_log
            line = f'{line[:LONGEST]}…{rest}'
        if line not in self._warned:
            self._warned.add(line)
            self._print(line)

    def close_bar(self) -> None:
        """Take the bar away, if there is one."""
        if self.bar is not None:
            bar, self.bar = self.bar, None
            with suppress(OSError):
                bar.stop()


class _Log(io.TextIOBase):
    """Writes into the file of MMEngine's logger, what came before it included.

    Args:
        keeps (bool): whether this process will have a log file.
        descriptor (int | None): for those who ask a stream for one.
    """

    def __init__(self, keeps: bool, descriptor: int | None) -> None:
        self._pending: list[str] | None = [] if keeps else None
        self._handler: logging.FileHandler | None = None
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        """Write to the file, or keep what is to be written to it."""
        if self._handler is None:
            if self._pending is not None:
                self._pending.append(text)
        elif self._handler.stream is not None:  # not closed
            # a run goes on where its log cannot, as with logging's own handlers
            with self._handler.lock, suppress(OSError, ValueError):
                encoding = getattr(self._handler.stream, 'encoding', None) or 'utf-8'
                known = text.encode(encoding, 'backslashreplace').decode(encoding)
                self._handler.stream.write(known)
                self._handler.flush()
        return len(text)

    def fileno(self) -> int:
        """The descriptor of the console."""
        if self._descriptor is None:
            return super().fileno()
        return self._descriptor

    def use(self, handler: logging.FileHandler) -> None:
        """Write to the file of this handler from now on."""
        if handler is not self._handler:
            self._handler = handler
            pending, self._pending = self._pending or [], []
            self.write(''.join(pending))


def is_first() -> bool:
    """Whether this is the first of several processes, which alone speaks."""
    return int(os.environ.get('RANK', 0)) == 0


def say(*lines: str) -> None:
    """Print lines, from the first one of several processes."""
    (_current or Console(sys.stdout)).say(*lines)


@contextmanager
def aloud() -> Iterator[None]:
    """Let the first one of several processes print on the console itself."""
    if _current is None or not is_first():
        yield
        return
    with redirect_stdout(_current.stream):
        yield


@contextmanager
def own_console() -> Iterator[Console]:
    """Send to the log file what is printed, warned and logged.

    The file is that of the first runner or logger with one; what comes before it is
    kept for it. Errors, and the warnings that come from mmravlt itself or tell of
    weights, are shown too, in a line each. Of several processes, each shows its errors.
    An exception that ends all this is written to the file and goes on.
    """
    global _current
    from mmengine.logging import MMLogger

    console = Console(sys.stdout)
    if hasattr(sys.stdout, 'reconfigure'):  # names may have letters that it lacks
        sys.stdout.reconfigure(errors='replace')
    log = _Log(is_first(), _descriptor(sys.stdout))

    def show(level: int, text: str, speaker: str) -> None:
        # not from the workers of a loader, which do not know of the bar
        if multiprocessing.parent_process() is not os_parent:
            return
        is_for_people = speaker.startswith(('mmravlt', _LOADS_WEIGHTS))
        is_told = level >= logging.WARNING and is_for_people and is_first()
        if level >= logging.ERROR or is_told:
            console.warn(logging.getLevelName(level), text)

    def call_handlers(logger: MMLogger, record: logging.LogRecord) -> None:
        files = [h for h in logger.handlers if isinstance(h, logging.FileHandler)]
        for handler in files[:1]:
            log.use(handler)
            console.has_log = True
        for handler in logger.handlers:
            is_console = type(handler) is logging.StreamHandler  # MMEngine's own
            if not is_console and record.levelno >= handler.level:
                handler.handle(record)
        with told(record):
            if not files and record.levelno >= logging.INFO:
                log.write(f'{record.levelname} - {record.getMessage()}\n')
            show(record.levelno, record.getMessage(), _speaker())

    def show_warning(message, category, filename, lineno, file=None, line=None) -> None:
        log.write(warnings.formatwarning(message, category, filename, lineno, line))
        show(logging.WARNING, str(message), _speaker())

    class Handler(logging.Handler):
        """Of all other loggers."""

        def emit(self, record: logging.LogRecord) -> None:
            with told(record):
                log.write(f'{self.format(record)}\n')
                show(record.levelno, record.getMessage(), record.name)

    @contextmanager
    def told(record: logging.LogRecord) -> Iterator[None]:
        # as logging does it, a message that cannot be made does not end the run
        try:
            yield
        except Exception:
            handler.handleError(record)

    os_parent = multiprocessing.parent_process()
    handler = Handler(logging.WARNING)
    layout = '%(levelname)s - %(name)s - %(message)s'
    handler.setFormatter(logging.Formatter(layout))
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(log))
        stack.enter_context(redirect_stderr(log))
        stack.callback(setattr, MMLogger, 'callHandlers', MMLogger.callHandlers)
        MMLogger.callHandlers = call_handlers
        stack.callback(setattr, warnings, 'showwarning', warnings.showwarning)
        warnings.showwarning = show_warning
        stack.callback(logging.root.removeHandler, handler)
        logging.root.addHandler(handler)
        outer, _current = _current, console
        try:
            yield console
        except Exception:
            log.write(traceback.format_exc())
            raise
        finally:
            _current = outer
            console.close_bar()


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, AttributeError):  # of a stream in memory
        return None


def _speaker() -> str:
    """The module that gives the message."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get('__name__', '') in _CARRIERS:
        frame = frame.f_back
    return frame.f_globals.get('__name__', '') if frame else ''
