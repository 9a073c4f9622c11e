"""Tables of classes, as files and for people."""

from mmravlt.reports.tables import as_csv, as_text, number

ROWS = [
    {'class': 'ant', 'images': 12, 'F1': 90.0},
    {'class': 'a bee, in "quotes"', 'images': 3, 'F1': None},
    {'class': 'ü', 'images': 100, 'F1': 7.25},
]


def test_people_see_the_worst_first_and_the_unknown_last():
    assert as_text(ROWS, 'F1', 1, 'x.csv').splitlines() == [
        'class               images    F1',
        'ü                      100   7.2',
        'ant                     12  90.0',
        'a bee, in "quotes"       3     -',
    ]


def test_people_see_so_many_and_where_the_others_are():
    rows = [{'class': f'{i}', 'F1': float(i)} for i in range(50)]
    lines = as_text(rows, 'F1', 1, 'x.csv').splitlines()
    assert len(lines) == 22
    assert lines[1].split() == ['0', '0.0']
    assert lines[-1] == 'and 30 more in x.csv'


def test_long_names_are_cut_for_people_only():
    rows = [{'class': 'x' * 99, 'F1': 1.0}]
    assert len(as_text(rows, 'F1', 1, 'x.csv').splitlines()[1]) < 40
    assert 'x' * 99 in as_csv(rows).decode()


def test_no_rows_are_no_lines():
    assert as_text([], 'F1', 1, 'x.csv') == ''


def test_a_file_has_all_columns_and_leaves_the_unknown_empty():
    text = as_csv([*ROWS, {'class': 'd', 'other': 1}]).decode()
    lines = text.splitlines()
    assert lines[0] == 'class,images,F1,other'
    assert lines[2] == '"a bee, in ""quotes""",3,,'
    assert lines[4] == 'd,,,1'


def test_what_is_no_number_is_unknown():
    assert number(float('nan')) is None
    assert number(0.12346) == 0.1235
