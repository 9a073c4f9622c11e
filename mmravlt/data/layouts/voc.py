"""Pascal VOC: an XML file for each image."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from ..base import DataError
from ..files import IMAGE_SUFFIXES, check_files, list_files, visible
from ..findings import Findings
from ..objects import ObjectTables
from . import Layout
from .common import (
    SPLIT_NAMES,
    ImageObjects,
    box_object,
    check_labels,
    make_tables,
    note_unlabelled,
    read_lines,
    read_names,
    split_folders,
    use_splits,
)

EDGES = ('xmin', 'ymin', 'xmax', 'ymax')
XML_FOLDERS = ('Annotations', 'annotations')
IMAGE_FOLDERS = ('JPEGImages', 'images', 'Images')
# What is raised for a file that is damaged, or in an encoding that is not known.
XML_ERRORS = (OSError, ElementTree.ParseError, LookupError, ValueError)
OPENED = 3  # XML files in a folder, to see whether they are of VOC


def find_voc(root: Path) -> str | None:
    """The first XML file that is VOC's, or None."""
    beside = [root, *split_folders(root).values()]
    apart = [_xml_folder(home) for home in [*_homes(root), *beside]]
    places = [(x, '**/*.xml') for x in apart if x] + [(x, '*.xml') for x in beside]
    for folder, pattern in places:
        for path in sorted(visible(folder, pattern))[:OPENED]:
            if _is_voc(path):
                return str(path.relative_to(root))
    return None


def read_voc(
    root: Path, splits: tuple[str, ...], findings: Findings
) -> dict[str, ObjectTables]:
    """Read XML files and the images that belong to them.

    The corners of boxes are indices of pixels from 1, as VOC defines them: a box begins
    at the left and upper edge of the first pixel and ends with the last one. Where one
    is 0, or most have fractions (VOC's own files have some), all are edges from 0.

    Args:
        root (Path): holds ``Annotations``, ``JPEGImages`` and, for splits,
            ``ImageSets/Main/{train,val}.txt``, or ``VOCdevkit`` with one folder of this
            kind; or XML files beside images, in a folder for each split or in one.
        splits (tuple[str]): of 'train' and 'val'.
        findings (Findings): what was left out, and what boxes are taken for.

    Raises:
        DataError: names the file that is wrong.
    """
    home = _home(root)
    found = _split_files(root, home)
    if 'all' not in found:
        found = use_splits(root, found, splits, findings)
    read = {
        split: check_files(_read_file, files, f'files of labels of {split}')
        for split, files in found.items()
    }
    every = [image for images in read.values() for image in images]
    boxes = [row['corners'] for image in every for row in image.objects]
    broken = sum(any(value != int(value) for value in box) for box in boxes)
    indices = min(map(min, boxes), default=1) >= 1 and broken <= len(boxes) / 2
    for image in every:
        image.objects = [_with_box(row, indices) for row in image.objects]
    classes, listed = _listed_classes(root, every)
    classes = check_labels(every, classes, listed)
    taken = {split: x for split, x in read.items() if split in ('all', *splits)}
    for split, images in taken.items():
        if not images:
            raise DataError(f'{home} lists no images for {split}.')
        sizeless = [image.path for image in images if image.size is None]
        if sizeless:
            reason = (
                'images have no size in their XML files; it is taken from the image'
            )
            findings.add(split, reason, str(sizeless[0]), len(sizeless))
        count = sum(len(image.objects) for image in images)
        reason = 'boxes count pixels from 1, so 1 is taken off xmin and ymin'
        if not indices:
            reason = 'boxes are edges from 0, as one is 0 or most have fractions'
        if count:
            findings.add(split, reason, str(images[0].path), count)
        if split == 'all' or not _xml_folder(home):
            folder = Path(os.path.commonpath([x.path.parent for x in images]))
            note_unlabelled(split, folder, every, findings)
    return {split: make_tables(root, home, x, classes) for split, x in taken.items()}


VOC = Layout(
    name='Pascal VOC',
    described='Annotations/*.xml, JPEGImages/ and ImageSets/Main/{train,val}.txt, or '
    'XML files beside images in train/ and val/',
    find=find_voc,
    read=read_voc,
)


def _homes(root: Path) -> list[Path]:
    """Folders with a folder of XML files, if root is no such folder itself."""
    homes = [root, *sorted(root.glob('VOCdevkit/*')), *sorted(root.glob('VOC*'))]
    return [home for home in homes if _xml_folder(home)]


def _xml_folder(home: Path) -> Path | None:
    """The folder of XML files that are not beside their images."""
    folders = (home / name for name in XML_FOLDERS)
    return next((x for x in folders if next(visible(x, '**/*.xml'), None)), None)


def _home(root: Path) -> Path:
    """The folder with ``Annotations``; root, if XML files are beside images."""
    homes = _homes(root)
    if len(homes) > 1:
        raise DataError(
            f'{root} holds {" and ".join(str(x.relative_to(root)) for x in homes)}; '
            'give one of these folders.'
        )
    return homes[0] if homes else root


def _is_voc(path: Path) -> bool:
    """Whether an XML file is VOC's; one that is damaged may be."""
    try:
        return ElementTree.parse(path).getroot().tag == 'annotation'
    except XML_ERRORS:
        return b'<annotation' in path.read_bytes()


def _split_files(root: Path, home: Path) -> dict[str, list[tuple[Path, Path]]]:
    """The XML files of each split, each with its image; without splits, under 'all'."""
    folder = _xml_folder(home)
    if folder:
        images = next((home / x for x in IMAGE_FOLDERS if (home / x).is_dir()), home)
        pairs = _pair(folder, images)
        return _image_sets(home, pairs) or dict(all=list(pairs.values()))
    found = {}
    for split, folder in split_folders(root).items():
        pairs = _pair(folder, folder)
        if pairs:
            found[split] = list(pairs.values())
    return found or dict(all=list(_pair(root, root).values()))


def _image_sets(home: Path, pairs: dict) -> dict[str, list[tuple[Path, Path]]]:
    """What the lists of names in ``ImageSets/Main`` say of splits."""
    sets = home / 'ImageSets' / 'Main'
    lists = {
        SPLIT_NAMES.get(path.stem.lower()): path for path in sorted(sets.glob('*.txt'))
    }
    if 'train' not in lists and (sets / 'trainval.txt').is_file():
        lists['train'] = sets / 'trainval.txt'
    found = {}
    for split in lists.keys() - {None}:
        found[split] = []
        for number, name in enumerate(read_lines(lists[split]), 1):
            if name.lower().endswith(IMAGE_SUFFIXES) and name not in pairs:
                name = name.rpartition('.')[0]
            if name and name not in pairs:
                name = name.split()[0]  # lists for one class have 1 or -1 behind it
            if name and name not in pairs:
                raise DataError(
                    f'{lists[split]}, line {number}: there is no {name}.xml in '
                    f'{_xml_folder(home)}.'
                )
            found[split] += [pairs[name]] if name else []
    return found


def _pair(folder: Path, image_dir: Path) -> dict[str, tuple[Path, Path]]:
    """XML files and their images, by the names of the former without suffix."""
    images = defaultdict(list)
    for name in list_files(image_dir, IMAGE_SUFFIXES):
        images[PurePosixPath(name).stem].append(image_dir / name)
    pairs = {}
    for name in list_files(folder, ('.xml',)):
        path = folder / name
        stem = PurePosixPath(name).with_suffix('').as_posix()
        beside = images.get(path.stem, [])
        if len(beside) > 1:
            place = image_dir / path.parent.relative_to(folder)
            same = [x for x in beside if x.parent == place]
            beside = same if len(same) == 1 else beside
        if len(beside) > 1:
            raise DataError(
                f'{path} may be about {beside[0]} or {beside[1]}; rename one of them.'
            )
        pairs[stem] = path, beside[0] if beside else image_dir
    return pairs


def _read_file(pair: tuple[Path, Path]) -> ImageObjects:
    """Read an XML file; its objects have ``corners`` as they stand there, and no box.

    Args:
        pair (tuple[Path, Path]): the file, and its image or the folder to look in.
    """
    path, image = pair
    try:
        top = ElementTree.parse(path).getroot()
    except XML_ERRORS as error:
        raise DataError(f'{path} cannot be read as XML: {error}.') from None
    if top.tag != 'annotation':
        raise DataError(f'{path} is not VOC: it begins with <{top.tag}>.')
    named = PurePosixPath((top.findtext('filename') or '').replace('\\', '/')).name
    if image.is_dir():  # no image has the name of the XML file
        image = image / named
        if not named or not image.is_file():
            raise DataError(
                f'{path} has no image: neither {path.stem}.jpg (or another suffix) '
                f'nor {named!r}, its filename, is in {image.parent}.'
            )
    elif named and image.name != named and (image.parent / named).is_file():
        raise DataError(
            f'{path} has the filename {named!r}, but the name of {image}, and both '
            'images are there; correct one of the two.'
        )
    objects = [
        _read_object(path, number, found)
        for number, found in enumerate(top.findall('object'), 1)
    ]
    return ImageObjects(image, _read_size(path, top), objects)


def _read_size(path: Path, top: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height; None where they are missing, empty or 0."""
    places = ('size/width', 'size/height')
    given = [(top.findtext(place) or '').strip() for place in places]
    size = [
        _number(path, top, x) for x, text in zip(places, given, strict=True) if text
    ]
    if len(size) < 2 or 0 in size:
        return None
    if not all(value >= 1 and value == int(value) for value in size):
        raise DataError(f'{path} has a size of {tuple(size)}; give pixels.')
    return int(size[0]), int(size[1])


def _read_object(path: Path, number: int, found: ElementTree.Element) -> dict:
    """An object with its ``corners`` instead of a box."""
    label = (found.findtext('name') or '').strip()
    if not label:
        raise DataError(f'{path}: object {number} has no name.')
    what = f'object {number} ({label!r}), '
    corners = [_number(path, found, f'bndbox/{edge}', what) for edge in EDGES]
    difficult = (found.findtext('difficult') or '0').strip()
    if difficult not in ('0', '1'):
        raise DataError(f'{path}: {what}difficult is {difficult!r}; give 0 or 1.')
    row: dict = dict(label=label, corners=corners)
    for attribute in found.iterfind('attributes/attribute'):
        if attribute.findtext('name') == 'rotation':  # of the box, in CVAT's files
            row['attributes'] = dict(rotation=attribute.findtext('value'))
    return dict(row, ignore=1) if difficult == '1' else row


def _number(path: Path, top: ElementTree.Element, place: str, what: str = '') -> float:
    """A number in an XML file."""
    text = top.findtext(place)
    try:
        value = float(text or '')
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f'{path}: {what}{place} is {text!r}; give a number.')
    return value


def _with_box(row: dict, indices: bool) -> dict:
    """An object with the box that its corners mean; see :func:`read_voc`."""
    x0, y0, x1, y1 = row.pop('corners')
    offset = 1 if indices else 0
    return {**row, **box_object(row['label'], x0 - offset, y0 - offset, x1, y1)}


def _listed_classes(
    root: Path, images: list[ImageObjects]
) -> tuple[list[str] | None, Path | None]:
    """The classes that a list names, and where it is."""
    for folder in (root, _home(root)):
        if (folder / 'classes.txt').is_file():
            return read_names(folder / 'classes.txt'), folder / 'classes.txt'
        path = folder / 'labelmap.txt'  # CVAT's: a name, its colour and more
        if path.is_file():
            lines = [line for line in read_lines(path) if not line.startswith('#')]
            names = [line.split(':')[0] for line in lines if line]
            used = {found['label'] for image in images for found in image.objects}
            return [x for x in names if x != 'background' or x in used], path
    return None, None
