"""Write the tables of published results into README.md and docs/models.md.

python docs/update_tables.py

They are made from configs/*/metafile.yml, and stand between two comments in each page.
A test fails where a page says something else.
"""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ('mmpretrain', 'mmdet', 'mmseg')
# Rows of the overview: name of the experiment, its data, its model.
OVERVIEW = {
    'ravlt_{}_in1k': ('ImageNet-1K', 'classifier'),
    'ravlt_{}_in1k_v2': ('ImageNet-V2', 'the same weights'),
    'retinanet_ravlt_{}_1x': ('COCO', 'RetinaNet, 12 epochs'),
    'mask_rcnn_ravlt_{}_1x': ('COCO', 'Mask R-CNN, 12 epochs'),
    'mask_rcnn_ravlt_{}_3x': ('COCO', 'Mask R-CNN, 36 epochs'),
    'cascade_mask_rcnn_ravlt_{}_3x': ('COCO', 'Cascade Mask R-CNN, 36 epochs'),
    'semantic_fpn_ravlt_{}_1x': ('ADE20K', 'Semantic FPN, 80,000 iterations'),
    'upernet_ravlt_{}_2x': ('ADE20K', 'UperNet, 160,000 iterations'),
}
METRICS = {
    'Top 1 Accuracy': 'top-1',
    'box AP': 'box AP',
    'mask AP': 'mask AP',
    'mIoU': 'mIoU',
}


def read_models() -> dict[str, dict]:
    """The models of all metafiles by their names."""
    models = {}
    for library in LIBRARIES:
        text = (ROOT / f'configs/{library}/metafile.yml').read_text(encoding='utf-8')
        models |= {model['Name']: model for model in yaml.safe_load(text)['Models']}
    return models


def results_of(model: dict) -> dict[str, float]:
    """The main results of a model by their short names."""
    found = {}
    for result in model.get('Results') or []:
        found |= result['Metrics']
    return {METRICS[name]: value for name, value in found.items() if name in METRICS}


def linked(text: str, model: dict, root: str) -> str:
    """A text that links the config of a model, and a link to its weights.

    ``root`` leads from the page to the project.
    """
    link = f'[{text}]({root}{model["Config"]})'
    return f'{link} · [weights]({model["Weights"]})' if 'Weights' in model else link


def markdown(rows: list[list[str]], aligned: str) -> str:
    """A Markdown table; ``aligned`` has 'l' or 'r' for each column."""
    dashes = ['---:' if side == 'r' else '---' for side in aligned]
    lines = [rows[0], dashes, *rows[1:]]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def overview(models: dict[str, dict], root: str) -> str:
    """A row for each experiment with RAVLT, a column for each size."""
    sizes = []
    for arch in 'tsbl':
        parameters = models[f'ravlt_{arch}_in1k']['Metadata']['Parameters']
        sizes.append(f'{arch.upper()}, {parameters / 1e6:.0f} M')
    rows = [['data', 'model', 'result', *sizes]]
    for name, (data, what) in OVERVIEW.items():
        found = [models.get(name.format(arch)) for arch in 'tsbl']
        results = [results_of(model) for model in found if model]
        cells = []
        for model in found:
            values = ' / '.join(map(str, results_of(model).values())) if model else ''
            cells.append(linked(values, model, root) if model else '–')
        rows.append([data, what, ' / '.join(results[0]), *cells])
    return markdown(rows, 'lllrrrr')


def all_models(models: dict[str, dict], root: str) -> str:
    """A row for each model of the metafiles."""
    rows = [['model', 'parameters (M)', 'FLOPs (G)', 'published result', 'from']]
    for name, model in models.items():
        metadata = model['Metadata']
        results = ', '.join(f'{k} {v}' for k, v in results_of(model).items())
        source = metadata.get('Results From', '').partition(';')[0]
        rows.append(
            [
                linked(f'`{name}`', model, root),
                f'{metadata["Parameters"] / 1e6:.2f}',
                f'{metadata["FLOPs"] / 1e9:.2f}',
                results or '–',
                source or '–',
            ]
        )
    return markdown(rows, 'lrrll')


PAGES = {'README.md': (overview, ''), 'docs/models.md': (all_models, '../')}


def updated(page: str) -> str:
    """The text of a page with the table that the metafiles give.

    Args:
        page (str): one of :data:`PAGES`.

    Raises:
        ValueError: if the page does not have the two comments exactly once.
    """
    make, root = PAGES[page]
    begin, end = '<!-- results: begin -->\n', '<!-- results: end -->'
    text = (ROOT / page).read_text(encoding='utf-8')
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f'{page} must have {begin.strip()} and {end} once each')
    table = make(read_models(), root)
    return re.sub(f'{begin}.*{end}', lambda _: begin + table + end, text, flags=re.S)


def main() -> None:
    for page in PAGES:
        (ROOT / page).write_text(updated(page), encoding='utf-8')


if __name__ == '__main__':
    main()
