"""What include and exclude patterns match."""

from __future__ import annotations

import pytest

from dicom_assets.landing.globs import matcher, pruner


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.dcm", "a.dcm", True),
        ("*.dcm", "sub/a.dcm", False),
        ("*.dcm", "a.DCM", False),
        ("**/*.dcm", "a.dcm", True),
        ("**/*.dcm", "x/y/a.dcm", True),
        ("**/*.dcm", "x/y/a.dcm/other", False),
        ("raw/**", "raw/a", True),
        ("raw/**", "raw/x/y", True),
        ("raw/**", "raw", False),
        ("raw/**", "rawer/a", False),
        ("**/tmp/**", "a/tmp/b", True),
        ("**/tmp/**", "tmp/b", True),
        ("**/tmp/**", "a/tmpx/b", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("IM?????", "IM00001", True),
        ("IM?", "IM/", False),
        ("IM[0-4]", "IM3", True),
        ("IM[!0-4]", "IM3", False),
        ("IM[!0-4]", "IM/", False),
        ("[", "[", True),
        ("a[]]", "a]", True),
        ("a+(b)", "a+(b)", True),
        ("a\\b", "a\\b", True),
        ("**", "line\nbreak", True),
        ("x[a^]", "x^", True),
    ],
)
def test_a_pattern_matches_the_whole_path_below_the_root(pattern: str, path: str, matches: bool) -> None:
    predicate = matcher((pattern,), ())
    assert (predicate is None or predicate(path)) is matches


def test_without_patterns_of_consequence_nothing_is_asked() -> None:
    assert matcher(("**",), ()) is None


def test_exclude_wins_over_include() -> None:
    wanted = matcher(("**/*.dcm",), ("old/**",))
    assert wanted is not None
    assert wanted("new/a.dcm")
    assert not wanted("old/a.dcm")
    assert not wanted("new/a.txt")


def test_an_empty_include_wants_nothing() -> None:
    wanted = matcher((), ())
    assert wanted is not None
    assert not wanted("a")


def test_folders_wholly_excluded_are_not_entered() -> None:
    pruned = pruner(("lost+found/**", "**/cache/**", "*.tmp"))
    assert pruned is not None
    assert pruned("lost+found")
    assert pruned("a/b/cache")
    assert not pruned("a/b")
    assert not pruned("x.tmp")


def test_nothing_is_pruned_where_only_files_are_excluded() -> None:
    assert pruner(("*.tmp", "**")) is None


def test_a_reversed_range_is_refused() -> None:
    with pytest.raises(ValueError, match="range"):
        matcher(("[z-a]",), ())
