"""YOLO: a text file for each image, with a line for each object in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..base import DataError
from ..files import IMAGE_SUFFIXES, check_files, list_files, visible
from ..findings import Findings
from ..images import image_size
from ..objects import ObjectTables
from . import Layout
from .common import (
    ImageObjects,
    box_object,
    make_tables,
    polygon_object,
    read_lines,
    read_names,
    split_folders,
    use_splits,
)

# How far values may lie outside 0 to 1 by rounding, also to three digits.
ROUNDING = 0.001

# Text files beside labels that are none.
NO_LABELS = ('classes.txt', 'obj.names.txt', 'readme.txt', 'notes.txt')


def find_yolo(root: Path) -> str | None:
    """A description of the data in YAML, or the first file of labels, or None."""
    described = _find_description(root)
    if described:
        return described.name
    for folder in _folders(root, 'labels').values():
        for path in _label_files(folder):
            first = next(filter(None, read_lines(path)), None)
            if first:
                return str(path.relative_to(root)) if _is_label(first) else None
    return None


def read_yolo(
    root: Path, splits: tuple[str, ...], findings: Findings
) -> dict[str, ObjectTables]:
    """Read images, and labels in the folders beside them.

    Args:
        root (Path): holds ``data.yaml``; or ``images`` and ``labels``, each with a
            folder for each split or without, and ``classes.txt``; or a folder for each
            split with these two in it.
        splits (tuple[str]): of 'train' and 'val'.
        findings (Findings): what was left out or looked for elsewhere.

    Raises:
        DataError: names the file, and of labels the line, that is wrong.
    """
    source = _find_description(root)
    if source:
        classes, found = _read_description(root, source, splits, findings)
    else:
        classes, source = _read_class_list(root)
        found = {
            split: [folder / name for name in list_files(folder, IMAGE_SUFFIXES)]
            for split, folder in _folders(root, 'images').items()
        }
    _note_leftovers(root, found, findings)
    if 'all' not in found:
        found = use_splits(root, found, splits, findings)
    return {
        split: _read_split(root, source, split, images, classes)
        for split, images in found.items()
        if split in ('all', *splits)
    }


YOLO = Layout(
    name='YOLO',
    described='data.yaml, or images/{train,val}, labels/{train,val} and classes.txt',
    find=find_yolo,
    read=read_yolo,
)


def _find_description(root: Path) -> Path | None:
    """The YAML file that tells names and folders.

    Raises:
        DataError: if there are several, none of them with the usual name.
    """
    files = sorted([*visible(root, '*.yaml'), *visible(root, '*.yml')])
    fitting = [path for path in files if _describes(path)]
    usual = [x for x in fitting if x.stem in ('data', 'dataset')]
    if len(usual or fitting) > 1:
        names = ', '.join(path.name for path in usual or fitting)
        raise DataError(f'{root} has several descriptions of data: {names}; leave one.')
    return (usual or fitting or [None])[0]


def _describes(path: Path) -> bool:
    """Whether a YAML file has what describes data; one that is damaged may have."""
    import yaml  # MMEngine brings it; FLOPs and ranks work without

    text = path.read_text(encoding='utf-8-sig', errors='replace')
    try:
        content = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return all(
            re.search(rf'^\s*(?:{key})\s*:', text, re.MULTILINE)
            for key in ('names', 'train|val')
        )
    keys = content.keys() if isinstance(content, dict) else ()
    return 'names' in keys and bool({'train', 'val', 'test'} & set(keys))


def _read_description(
    root: Path, path: Path, splits: tuple[str, ...], findings: Findings
) -> tuple[list[str], dict[str, list[Path]]]:
    """The classes and the images of each split that a YAML file tells."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError, yaml.YAMLError) as error:
        text = ' '.join(str(error).split())
        raise DataError(f'{path} cannot be read as YAML: {text}.') from None
    if 'kpt_shape' in content:
        raise DataError(
            f'{path} has kpt_shape, so the labels are points of poses, which no '
            'detector learns; use labels of boxes or polygons.'
        )
    classes = _class_names(path, content)
    start = content.get('path') or '.'
    found = {}
    for split in ('train', 'val', 'test'):
        given = content.get(split) or []
        places = given if isinstance(given, list) else [given]
        images: list[Path] = []
        for place in places:
            if not isinstance(place, str) or not isinstance(start, str):
                raise DataError(
                    f'{path} has {place!r} for {split!r}; give a folder or several.'
                )
            folders = (x.replace('\\', '/') for x in (start, place))
            try:
                images += _list_images(root, path, split, *folders, findings)
            except DataError:  # what is not needed may be missing
                if split in splits:
                    raise
        if images or split in splits and places:
            found[split] = list(dict.fromkeys(images))
    both = set(found.get('train', ())) & set(found.get('val', ()))
    if both:
        reason = 'images are those of train, too, so scores are too good'
        findings.add('val', reason, str(min(both)), len(both))
    return classes, found


def _class_names(path: Path, content: dict) -> list[str]:
    """The names in the order of their indices."""
    names = content['names']
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise DataError(
                f'{path} numbers its names {", ".join(map(str, names))}; number them '
                'from 0 without a gap.'
            )
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names:
        raise DataError(f'{path} has {names!r} for names; give a list of names.')
    for i, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise DataError(
                f'{path} has {name!r} for the name of class {i}; YAML reads words such '
                'as no, on and null so, so put it in quotes.'
            )
    names = [str(name).strip() for name in names]
    for i, name in enumerate(names):
        if not name or name in names[:i]:
            raise DataError(
                f'{path}: the name {name!r} of class {i} is '
                f'{"there twice" if name else "empty"}; each class needs its own.'
            )
    if str(content.get('nc', len(names))) != str(len(names)):
        raise DataError(
            f'{path} says nc: {content["nc"]}, but has {len(names)} names; correct one '
            'of them.'
        )
    return names


def _list_images(
    root: Path, path: Path, split: str, start: str, place: str, findings: Findings
) -> list[Path]:
    """The images in a folder, or in a list of them, that a YAML file names."""
    given = Path(start) / place
    found = _locate(root, given)
    if not found:
        raise DataError(
            f'{path} says that {split} is in {str(given)!r}, but there is nothing of '
            f'this name below {root}; correct it.'
        )
    if found != _join(root, given):
        reason = 'paths in the YAML file are not here and were found by their ends'
        findings.add(split, reason, f'{str(given)!r} as {found}')
    if found.is_dir():
        return [found / name for name in list_files(found, IMAGE_SUFFIXES)]
    if found.suffix != '.txt':
        raise DataError(
            f'{path} says that {split} is {place!r}; give a folder or a .txt file.'
        )
    images = []
    for number, line in enumerate(read_lines(found), 1):
        if not line:
            continue
        given = Path(start) / line.replace('\\', '/')
        image = _join(found.parent, Path(line.replace('\\', '/')))
        if not image.is_relative_to(root) or not image.is_file():
            image = _locate(root, given)
            if not image or not image.is_file():
                raise DataError(
                    f'{found}, line {number}: the image {line!r} is not below {root}.'
                )
            if image != _join(root, given):
                reason = 'paths of images are not here and were found by their ends'
                findings.add(split, reason, f'{line!r} as {image}')
        images.append(image)
    return images


def _locate(root: Path, place: Path) -> Path | None:
    """A file or folder, by the longest end of its path that is below root.

    What is not there at all may be elsewhere: on the same machine, or above root.
    """
    parts = [part for part in place.parts if part not in ('..', place.anchor)]
    places = [root.joinpath(*parts[i:]) for i in range(len(parts) or 1)]
    return next((x for x in [*places, _join(root, place)] if x.exists()), None)


def _join(root: Path, place: Path) -> Path:
    """A path from root; ``..`` goes up, and links stay what they are."""
    return Path(os.path.normpath(root / place))


def _folders(root: Path, kind: str) -> dict[str, Path]:
    """Folders of ``images`` or ``labels`` by their split; without any, under 'all'."""
    inside = split_folders(root / kind)
    if inside:
        return inside
    outside = {split: x / kind for split, x in split_folders(root).items()}
    found = {split: folder for split, folder in outside.items() if folder.is_dir()}
    if not found and (root / kind).is_dir():
        return dict(all=root / kind)
    return found


def _read_class_list(root: Path) -> tuple[list[str], Path]:
    """The names in ``classes.txt``, and where that is."""
    for folder in (root, root / 'labels'):
        if (folder / 'classes.txt').is_file():
            return read_names(folder / 'classes.txt'), folder / 'classes.txt'
    raise DataError(
        f'{root} has labels of YOLO, but neither data.yaml nor classes.txt; write the '
        'names of the classes into the latter, one per line.'
    )


def _label_path(root: Path, image: Path) -> Path:
    """Where the labels of an image are: in ``labels`` instead of ``images``."""
    start = root if image.is_relative_to(root) else Path(image.anchor)
    parts = list(image.relative_to(start).parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == 'images':
            parts[i] = 'labels'
            break
    return start.joinpath(*parts).with_suffix('.txt')


def _note_leftovers(
    root: Path, found: dict[str, list[Path]], findings: Findings
) -> None:
    """Count the files of labels that are of no image."""
    used = {_label_path(root, image) for images in found.values() for image in images}
    for split, images in found.items():
        folders = {_label_path(root, image).parent for image in images}
        for folder in sorted(folders):
            for path in sorted(visible(folder, '*.txt')):
                if path not in used and path.name.lower() not in NO_LABELS:
                    reason = 'files of labels have no image in any split'
                    findings.add(split, reason, str(path))
                    used.add(path)


def _read_split(
    root: Path, source: Path, split: str, images: list[Path], classes: list[str]
) -> ObjectTables:
    """Read the labels of the images of one split."""
    if not images:
        raise DataError(
            f'{source}: {split} has no images ({", ".join(IMAGE_SUFFIXES)}).'
        )
    labels: dict[Path, Path] = {}
    for image in images:
        path = _label_path(root, image)
        if path in labels:
            raise DataError(
                f'{labels[path]} and {image} share the labels {path}; rename one.'
            )
        labels[path] = image
    if not any(path.is_file() for path in labels):
        raise DataError(
            f'{source}: none of the {len(images)} images of {split} has a file of '
            f'labels; that of {images[0]} would be {next(iter(labels))}.'
        )

    def read(pair: tuple[Path, Path]) -> ImageObjects:
        path, image = pair
        size = image_size(image)
        return ImageObjects(image, size, list(_read_labels(path, size, classes)))

    rows = check_files(read, list(labels.items()), f'files of labels of {split}')
    return make_tables(root, source, rows, classes)


def _read_labels(
    path: Path, size: tuple[int, int], classes: list[str]
) -> Iterator[dict]:
    """The objects in a file of labels; an image without one has none."""
    width, height = size
    for number, line in enumerate(read_lines(path) if path.is_file() else (), 1):
        if not line:
            continue
        place = f'{path}, line {number}'
        try:
            index, *values = map(float, line.split())
        except ValueError:
            raise DataError(
                f'{place}: {line[:80]!r} are not numbers; give a class index, then x y '
                'width height or the points of a polygon.'
            ) from None
        if not 0 <= index < len(classes) or index != int(index):
            raise DataError(
                f'{place}: the class index {line.split()[0]} is none of 0 to '
                f'{len(classes) - 1}, which have names.'
            )
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise DataError(
                f'{place} has {len(values)} numbers after the class index; give 4 of a '
                'box (x y width height) or 6, 8, 10 … of a polygon (x y x y …).'
            )
        for value in values:
            if not -ROUNDING <= value <= 1 + ROUNDING:  # NaN is not
                raise DataError(
                    f'{place}: {value:g} is not between 0 and 1; give parts of the '
                    "image's width and height, not pixels."
                )
        label = classes[int(index)]
        if len(values) > 4:
            inside = [min(max(value, 0.0), 1.0) for value in values]
            inside[::2] = [x * width for x in inside[::2]]
            inside[1::2] = [y * height for y in inside[1::2]]
            yield polygon_object(label, [inside])
        else:
            x, y, w, h = values
            x0, x1 = (_inside(edge) * width for edge in (x - w / 2, x + w / 2))
            y0, y1 = (_inside(edge) * height for edge in (y - h / 2, y + h / 2))
            yield box_object(label, x0, y0, x1, y1)


def _inside(edge: float) -> float:
    """The edge of a box, within the image if only rounding put it outside."""
    nearest = min(max(edge, 0.0), 1.0)
    return nearest if abs(edge - nearest) <= ROUNDING else edge


def _is_label(line: str) -> bool:
    """Whether a line is of YOLO's labels: a class index and relative values."""
    try:
        index, *values = map(float, line.split())
    except ValueError:
        return False
    shaped = len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)
    return shaped and index >= 0 and index == int(index) and max(values) <= 1 + ROUNDING


def _label_files(folder: Path) -> Iterator[Path]:
    """Files that may hold labels."""
    for path in sorted(visible(folder, '**/*.txt')):
        if path.name.lower() not in NO_LABELS:
            yield path
