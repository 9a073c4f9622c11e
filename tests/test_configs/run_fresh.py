"""Run scripts, each in a process that has nothing of OpenMMLab's tasks or mmravlt.

They share the import of what these build on, which takes most of the time.
"""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot  # noqa: F401
import mmengine.runner  # noqa: F401
import torchvision  # noqa: F401


def run(script):
    os.chdir(Path(script).parent)
    runpy.run_path(script)


if __name__ == '__main__':
    assert not {'mmravlt', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'} & set(sys.modules)
    context = multiprocessing.get_context('fork' if os.name == 'posix' else 'spawn')
    for script in sys.argv[1:]:
        process = context.Process(target=run, args=(script,))
        process.start()
        process.join()
        print(Path(script).stem, 'fails' if process.exitcode else 'inherits')
