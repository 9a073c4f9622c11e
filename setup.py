"""Metadata and package data of mmravlt. Nothing here imports torch.

No OpenMMLab package is a plain requirement: mmcv, mmcv-lite and onedl-mmcv
install into the same folder and overwrite each other without a word, so an
environment that already holds one of them must be left alone. The extras
below install a stack into a fresh environment; never combine two of them.
"""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
VERSION = re.search(
    r"__version__ = '(.+)'", (ROOT / 'mmravlt/version.py').read_text()
).group(1)

OPENMMLAB = [
    'mmengine>=0.10.7,<1',
    'mmdet==3.3.0',
    'mmsegmentation==1.2.2',
    'mmpretrain==1.2.0',
    'ftfy',  # mmsegmentation imports ftfy and regex without requiring them
    'regex',
    'setuptools<82',  # mmengine reads pkg_resources, gone in setuptools 82
]
EXTRAS = {
    # for environments that have their own mmcv
    'openmmlab': OPENMMLAB,
    # for fresh environments: mmcv in its pure-Python form
    'lite': [*OPENMMLAB, 'mmcv-lite>=2.1,<2.2'],
    # the maintained forks, which keep the import names
    'onedl': [
        'onedl-mmengine==0.10.12',
        'onedl-mmcv==2.3.6',
        'onedl-mmdetection==3.5.1',
        'onedl-mmsegmentation==1.4.2',
        'onedl-mmpretrain==1.3.6',
    ],
    # to read and write weights in that format
    'safetensors': ['safetensors>=0.4'],
    'dev': [
        'mypy',
        'onnx',
        'onnxruntime',
        'pytest',
        'pytest-xdist',
        'ruff',
        'safetensors',
    ],
}


class BuildWithMim(build_py):
    """Ship configs, tools and model index as ``mmravlt/.mim``.

    MMEngine and mim look for them there.

    A wheel gets copies; an editable install gets links, so that edits count.
    """

    def run(self):
        super().run()
        package = ROOT if self.editable_mode else Path(self.build_lib).resolve()
        mim = package / 'mmravlt' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in ('configs', 'tools', 'model-index.yml'):
            if self.editable_mode:
                try:
                    os.symlink(Path('../..') / name, mim / name)
                    continue
                except OSError:  # Windows without the right to make links
                    pass
            if (ROOT / name).is_file():
                shutil.copy(ROOT / name, mim / name)
                continue
            ignore = shutil.ignore_patterns('__pycache__')
            shutil.copytree(ROOT / name, mim / name, ignore=ignore)


setup(
    name='mmravlt',
    version=VERSION,
    description='RAVLT (Rank-Augmented Vision Linear Transformer, CVPR 2025) '
    'for PyTorch and OpenMMLab: detection, segmentation and classification',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='mmravlt contributors',
    license='Apache-2.0',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        # Those that constraints.txt and CI install; later ones are not refused.
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['mmravlt', 'mmravlt.*']),
    package_data={'mmravlt': ['py.typed']},
    python_requires='>=3.10',
    install_requires=['torch>=2.1', 'torchvision>=0.16', 'numpy', 'packaging'],
    extras_require=EXTRAS,
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
