"""What runs on GitHub and before commits is what runs here."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding='utf-8'))


def test_workflow_runs_all_checks_on_each_supported_python():
    (job,) = read('.github/workflows/ci.yml')['jobs'].values()
    assert [step['run'] for step in job['steps'] if 'run' in step] == ['.ci/run']
    versions = job['strategy']['matrix']['python']
    setup = (ROOT / 'setup.py').read_text(encoding='utf-8')
    classifiers = re.findall(r'Programming Language :: Python :: (3\.\d+)', setup)
    assert classifiers == versions
    assert f"python_requires='>={versions[0]}'" in setup
    install = (ROOT / 'docs/install.md').read_text(encoding='utf-8')
    assert f'Python {versions[0]} to {versions[-1]} ' in install


def test_pre_commit_has_the_ruff_of_the_constraints():
    (repo,) = read('.pre-commit-config.yaml')['repos']
    constraints = (ROOT / 'constraints.txt').read_text(encoding='utf-8')
    assert f'ruff=={repo["rev"].removeprefix("v")}\n' in constraints
    assert {hook['id'] for hook in repo['hooks']} == {'ruff-check', 'ruff-format'}
