"""Data for segmentors: images and maps of class indices."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from .base import DataError, DataOptions, Prepared
from .cache import prepare_once, write_text
from .files import check_files
from .findings import Findings
from .images import ImageInfo, inspect_images
from .layouts import Layout, choose_layout
from .layouts.ade20k import ADE20K
from .layouts.cityscapes import CITYSCAPES
from .layouts.index_maps import COLOUR_MAPS, INDEX_MAPS
from .layouts.voc_maps import VOC_MAPS
from .listing import Listing, count_files_used_twice, split_listings
from .maps import IGNORED, Converter, check_pair, check_size

# Made sure of by more than folders, which are what the others go by
SPECIAL = (VOC_MAPS, CITYSCAPES, ADE20K)
GENERAL = (INDEX_MAPS, COLOUR_MAPS)


def prepare_maps(root: Path, options: DataOptions) -> Prepared:
    """Find, read and check images and maps of class indices.

    Args:
        root (Path): in one of the layouts above.
        options (DataOptions): what is needed of it.

    Returns:
        Prepared: each split has ``ann_file``, the JSON that
        :class:`mmravlt.openmmlab.listed_maps.ListedMaps` reads, the number of
        ``images``, and ``zero_ignored``: whether 0 is of no class in the maps and 1
        the class with index 0. ADE20K names no classes; mmseg does.

    Raises:
        DataError: says what is wrong and what to do.
    """
    return prepare_once(root, 'segmentation', options, partial(_prepare, root, options))


def _prepare(root: Path, options: DataOptions, folder: Path) -> Prepared:
    layout = _find_layout(root)
    listings = layout.read(root, options.splits)
    listings, notes = split_listings(listings, root, options, folder)
    findings = Findings()
    images = [image for split in options.splits for image, _ in listings[split].pairs]
    infos, seen, bit_depth = inspect_images(images, f'images in {root}', options)
    splits = {}
    for split in options.splits:
        listing = listings[split]
        for reason, example, count in listing.odd:
            findings.add(split, reason, example, count)
        splits[split] = _prepare_split(listing, split, folder, findings, infos)
    if options.check:
        needed = {split: listings[split] for split in options.splits}
        count_files_used_twice(needed, findings)
    classes = list(listings[options.splits[0]].classes)
    notes += findings.notes() + seen
    return Prepared(layout.name, classes, splits, notes, bit_depth)


def _find_layout(root: Path) -> Layout:
    special = [layout for layout in SPECIAL if layout.find(root)]
    return special[0] if len(special) == 1 else choose_layout(root, SPECIAL + GENERAL)


def _prepare_split(
    listing: Listing,
    split: str,
    folder: Path,
    findings: Findings,
    infos: dict[Path, ImageInfo],
) -> dict:
    """Check one split, convert its maps if need be, and write the list of it.

    It is checked if there is something in ``infos``, which has all images then.
    """
    pairs, held = listing.pairs, []
    if listing.values.converted:
        place = folder / 'maps' / split
        place.mkdir(parents=True, exist_ok=True)
        convert = Converter(listing.values)
        triples = [
            (*pair, place / f'{i:06}_{pair[1].stem}.png')
            for i, pair in enumerate(pairs)
        ]

        def prepare(triple: tuple[Path, Path, Path]) -> set[int]:
            image, label_map, target = triple
            indices, size = convert(label_map, target)
            if infos:
                check_size(image, label_map, size, infos[image])
            return indices

        held = check_files(prepare, triples, f'maps in {listing.source}, and converted')
        pairs = [(image, target) for image, _, target in triples]
        reason = f'maps were converted to class indices in {place}'
        findings.add(split, reason, pairs[0][1].name, len(pairs))
    elif infos:
        held = check_files(
            lambda pair: check_pair(*pair, listing.values, infos[pair[0]]),
            pairs,
            f'maps in {listing.source}',
        )
    if infos:
        _check_labelled(listing, split, held, findings)
    ann_file = folder / f'{split}.json'
    write_text(ann_file, json.dumps([[str(a), str(b)] for a, b in pairs]))
    return dict(
        ann_file=str(ann_file),
        images=len(pairs),
        zero_ignored=listing.values.zero_ignored,
    )


def _check_labelled(
    listing: Listing, split: str, held: list[set[int]], findings: Findings
) -> None:
    """Count what is of no use in the maps, and refuse it if that is all."""
    values, source = listing.values, listing.source
    labelled = set().union(*held) - set(values.ignored)
    if len(labelled) < (2 if split == 'train' else 1):
        only = f'only class {min(labelled)}' if labelled else 'no class at all'
        raise DataError(
            f'The maps in {source} hold {only} besides ignored pixels, so nothing '
            f'can be learnt or scored; {IGNORED} means ignored, so a mask of 0 and '
            '255 has to be saved as 0 and 1.'
        )
    ignored = [i for i, found in enumerate(held) if found <= set(values.ignored)]
    if ignored:
        example = str(listing.pairs[ignored[0]][1])
        findings.add(
            split, 'maps hold nothing but ignored pixels', example, len(ignored)
        )
    absent = [i for i in values.classes if i not in labelled]
    if absent:
        names = listing.classes or [f'value {i}' for i in values.classes]
        example = names[values.classes.index(absent[0])]
        reason = f'of {len(values.classes)} classes never occur in the maps'
        findings.add(split, reason, example, len(absent))
