"""The folder in which workers count together."""

from pathlib import Path

from regproxy.engine.metrics_directory import forget_moment, make_directory, remove_directory


def test_an_empty_folder_of_our_own(tmp_path: Path) -> None:
    """Also where an earlier run has left one."""
    directory = make_directory("proxy", (tmp_path,))
    assert directory is not None
    (directory / "counter_1.db").touch()

    assert make_directory("proxy", (tmp_path,)) == directory
    assert list(directory.iterdir()) == []
    assert directory.stat().st_mode & 0o777 == 0o700
    remove_directory(directory)
    assert not directory.exists()


def test_what_is_not_our_own_is_not_used(tmp_path: Path) -> None:
    """A folder that others may write to, or that somebody else has put in its place, is passed over."""
    first, second, target = (tmp_path / name for name in ("first", "second", "target"))
    for each in (first, second, target):
        each.mkdir()
    made = make_directory("proxy", (first,))
    assert made is not None
    made.rmdir()
    made.symlink_to(target)
    (target / "precious").touch()

    assert make_directory("proxy", (first, second)) == second / made.name
    assert (target / "precious").exists()
    (second / made.name).chmod(0o777)
    assert make_directory("proxy", (first, second)) is None


def test_only_what_is_of_the_moment_goes_with_a_process(tmp_path: Path) -> None:
    """What it has counted stays."""
    for name in ("counter_7.db", "gauge_livesum_7.db", "gauge_livesum_8.db", "gauge_mostrecent_7.db"):
        (tmp_path / name).touch()
    forget_moment(tmp_path, 7)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "counter_7.db",
        "gauge_livesum_8.db",
        "gauge_mostrecent_7.db",
    ]
