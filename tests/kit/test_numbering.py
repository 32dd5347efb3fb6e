"""Numbers in the names of files: which digits are the number of a sequence, and which files belong together."""

import re

import pytest

from kit import numbering
from kit.numbering import NumberingRule


def find(path: str, glob: str = "**", sequence: str = "seq", pattern: str | None = None) -> int | None:
    rule = NumberingRule(glob, sequence, re.compile(pattern) if pattern else None)
    governed = numbering.find_governed((rule,), path)
    return governed.number if governed else None


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("0007-cache.md", 7),
        ("7-cache.md", 7),
        ("0007_cache.md", 7),
        ("0007 cache.md", 7),
        ("0007.cache.md", 7),
        ("0007.md", 7),
        ("0007", 7),
        ("(7) cache.md", None),
        ("ADR-0007-cache.md", 7),
        ("ADR-7-cache.md", 7),
        ("adr-007.md", 7),
        ("adr_007_cache.md", 7),
        ("ADR 7 cache.md", 7),
        ("ADR0007-cache.md", 7),
        ("ADR0007.md", 7),
        ("pep-0008.rst", 8),
        ("RFC-12-cache.md", 12),
        ("DEC-0012.md", 12),
        ("my-adr-0012-x.md", 12),
        ("R7-x2.md", 7),
        ("V12__add_users.sql", 12),
        ("V012__add_users.sql", 12),
        ("U12__add_users.sql", 12),
        ("V5__x.rs", 5),
        ("0001_initial.py", 1),
        ("0012_auto_20240115_1200.py", 12),
        ("0003_merge_20240115_1200.py", 3),
        ("00001_create_users.sql", 1),
        ("000001_create_users.up.sql", 1),
        ("00000001_create_users.up.sql", 1),
        ("0001_funny_name.sql", 1),
        ("changelog-001.xml", 1),
        ("0007-404-page.md", 7),
        ("0007-2024-review.md", 7),
        ("2019-3-way-merge.md", 2019),
        ("1999-x.md", 1999),
        ("123456-x.md", 123456),
        ("1000000-x.md", 1000000),
        # Without a number, or without one of a sequence.
        ("README.md", None),
        ("0000-template.md", None),
        ("index.md", None),
        ("20240115-cache.md", None),
        ("2024-01-15-cache.md", None),
        ("2024-1-5-cache.md", None),
        ("2024.01.15.md", None),
        ("2024-01.md", None),
        ("2024_01_15_000000_create_users_table.php", None),
        ("0001_01_01_000000_create_users_table.php", None),
        ("2024-Q1-review.md", None),
        ("2024-w05.md", None),
        ("2024q1.md", None),
        ("2024-W5-x.md", None),
        ("Q1-2024-x.md", None),
        ("2024-0001-cache.md", None),
        ("2024-013-cache.md", None),
        ("2024-13-cache.md", None),
        ("ADR-2024-001.md", None),
        ("24-001-cache.md", None),
        ("01-02-cache.md", None),
        ("15-01-2024-cache.md", None),
        ("24-01-15-cache.md", None),
        ("240115-cache.md", None),
        ("202401-cache.md", None),
        ("adr-20240115-cache.md", None),
        ("ADR-2024-01-15-cache.md", None),
        ("20240115120000_create_users.rb", None),
        ("20240115120000-create-users.js", None),
        ("20240115120000_Init.Designer.cs", None),
        ("202401151200_x.sql", None),
        ("1705320000_create_users.up.sql", None),
        ("1705320000000-Init.ts", None),
        ("00000000000000_diesel_initial_setup", None),
        ("00000000000001_setup.sql", None),
        ("Migration20240115120000.ts", None),
        ("Version20240115120000.php", None),
        ("V20240115120000__x.sql", None),
        ("V20240115.1200__x.sql", None),
        ("1975ea83b712_create_account.py", None),
        ("197583712345_create_account.py", None),
        ("27c6a30d7c24_x.py", None),
        ("e3b0c44298fc_x.py", None),
        ("ab12_x.py", None),
        ("1.2.0-notes.md", None),
        ("1.2.md", None),
        ("v1.2.0.md", None),
        ("V1.1__x.sql", None),
        ("V1_1__x.sql", None),
        ("V2_api.md", None),
        ("v2-api.md", None),
        ("R__view.sql", None),
        ("B12__baseline.sql", None),
        ("db.changelog-1.0.xml", None),
        ("0001_squashed_0004_x.py", None),
        ("2fa-login.md", None),
        ("3d-view.md", None),
        ("10x.md", None),
        ("sha256-hashes.md", None),
        ("utf8-names.md", None),
        ("http2.md", None),
        ("http-2-support.md", None),
        ("oauth2-login.md", None),
        ("s3-buckets.md", None),
        ("k8s-cluster.md", None),
        ("part1.md", None),
        ("use-3-replicas.md", None),
        ("postgres-16-upgrade.md", None),
        ("notes-from-0012.md", None),
        ("notes.md5", None),
        ("99999999999999999999.md", None),
        ("9" * 5000 + ".md", None),
        ("٣-arabic.md", None),
        (".0007-hidden.md", None),
    ],
)
def test_only_digits_at_the_beginning_up_to_a_separator_are_a_number(name: str, number: int | None) -> None:
    assert find(f"docs/adr/{name}", "docs/adr/**") == number


@pytest.mark.parametrize(
    ("glob", "path", "number"),
    [
        ("docs/adr/*/README.md", "docs/adr/0042-queue/README.md", 42),
        ("docs/adr/*/README.md", "docs/adr/ADR-042/README.md", 42),
        ("docs/adr/**", "docs/adr/0042-queue/images/a.png", 42),
        ("docs/adr/**", "docs/adr/0042-queue/0007-note.md", 7),
        ("prisma/migrations/*/migration.sql", "prisma/migrations/20240115120000_init/migration.sql", None),
        ("migrations/*/up.sql", "migrations/2024-01-15-120000_create/up.sql", None),
        ("migrations/*/up.sql", "migrations/0001_create/up.sql", 1),
        # A folder that the glob names is not numbered.
        ("2024/adr/*.md", "2024/adr/cache.md", None),
        ("0007/*/README.md", "0007/x/README.md", None),
        ("src", "src/0007-a.py", 7),
    ],
)
def test_the_number_may_be_that_of_a_folder_that_a_wildcard_matches(glob: str, path: str, number: int | None) -> None:
    assert find(path, glob) == number


def test_the_name_of_the_sequence_may_precede_its_numbers() -> None:
    assert find("notes/note-3.md", sequence="note") == 3
    assert find("notes/note-3.md", sequence="notes") == 3
    assert find("notes/NOTE3-x.md", sequence="note") == 3
    assert find("notes/note-3.md", sequence="adr") is None


@pytest.mark.parametrize(
    ("pattern", "path", "number"),
    [
        (r"n([0-9]+)", "notes/2024/n1.md", 1),
        (r"/([0-9]+)_", "migrations/20240115120000_x.sql", 20240115120000),
        (r"V[0-9]+_([0-9]+)__", "db/V1_12__x.sql", 12),
        (r"n([0-9]*)", "notes/n.md", None),
        (r"n(.*)\.md", "notes/n1x.md", None),
        (r"n(\d+)", "notes/n٣.md", None),
    ],
)
def test_a_number_is_what_the_pattern_of_the_sequence_captures(pattern: str, path: str, number: int | None) -> None:
    assert find(path, pattern=pattern) == number


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("000007_users.up.sql", "000007_users.down.sql", True),
        ("0007_up.sql", "0007_down.sql", True),
        ("0007_users_up.sql", "0007_users_down.sql", True),
        ("V7__users.sql", "U7__users.sql", True),
        ("0007-cache.md", "0007-cache.de.md", True),
        ("0007-cache.md", "0007-cache.png", True),
        ("0007-cache.md", "ADR-7 Cache.md", True),
        ("0007-q/README.md", "0007-q/more.md", True),
        ("0007.do.sql", "0007.undo.sql", True),
        ("0007.do.users.sql", "0007.undo.users.sql", True),
        ("0007_users.cs", "0007_users.Designer.cs", True),
        ("0007.do.users.sql", "0007.do.orders.sql", False),
        ("0007.cache.md", "0007.queue.md", False),
        ("0007-to-v1.2.md", "0007-to-v1.3.md", False),
        ("0007-cache.md", "0007-queue.md", False),
        ("0007.md", "0007-queue.md", False),
        ("V7__users.sql", "V7__orders.sql", False),
    ],
)
def test_files_of_one_number_belong_together_if_they_have_one_title(first: str, second: str, is_same: bool) -> None:
    rule = NumberingRule("**", "seq")
    governed = [numbering.find_governed((rule,), path) for path in (first, second)]
    assert governed[0]
    assert governed[1]
    assert governed[0].number == governed[1].number == 7
    assert (governed[0].title == governed[1].title) is is_same


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("20240115120000_x.rb", "timestamp"),
        ("2024-01-15-x.md", "timestamp"),
        ("V20240115120000__x.sql", "timestamp"),
        ("Migration20240115120000.ts", "timestamp"),
        ("1705320000000-Init.ts", "timestamp"),
        ("2024-013-x.md", "timestamp"),
        ("24-001-x.md", "version"),
        ("1.2.0.sql", "version"),
        ("V1_1__x.sql", "version"),
        ("1975ea83b712_create.py", "hash"),
        ("ae1027a6acf4_create.py", "hash"),
        ("0001-x.md", None),
        ("README.md", None),
        ("__init__.py", None),
    ],
)
def test_other_schemes_of_versions_are_recognised(name: str, scheme: str | None) -> None:
    assert numbering.find_version_scheme(name) == scheme


def test_a_single_number_far_above_the_others_is_not_the_highest() -> None:
    assert numbering.highest_number([]) == 0
    assert numbering.highest_number([1, 2, 2, 5]) == 5
    assert numbering.highest_number([1000]) == 1000
    assert numbering.highest_number([1, 2, 404]) == 2
    assert numbering.highest_number([1, 1000, 1001]) == 1001
    assert numbering.highest_number([100, 200, 300]) == 300
