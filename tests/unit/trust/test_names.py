"""Names in signed metadata: what they mean, and that nothing else is read as one."""

from __future__ import annotations

import pytest

from edgeloop.protocol import ProtocolError
from edgeloop.trust import names

NO_NAMES = ["", "..", ".", "a/b", "a*", "a?", "[ab]", "a b", "a\n", "ａ", "a\u0301", "é", "x" * 65, "a\\b", "%2e"]


def test_a_release_s_path_reads_back_as_its_model_order_role_and_base():
    released = names.parse_release("releases/digits/17")
    assert (released.model, released.order, released.role) == ("digits", (17, 0), "releases.digits")
    assert released.base == released
    assert str(released) == names.release_path("digits", 17)


def test_a_retrained_release_comes_right_after_its_base_and_before_the_publisher_s_next():
    retrained = names.parse_release("retrained/digits/17/3")
    assert (retrained.model, retrained.role) == ("digits", "retrained")
    assert str(retrained.base) == "releases/digits/17"
    assert names.parse_release("releases/digits/17").order < retrained.order
    assert retrained.order < names.parse_release("releases/digits/18").order
    assert str(retrained) == names.retrained_path("digits", 17, 3)


@pytest.mark.parametrize(
    "path",
    [
        "releases/digits",
        "releases/digits/0",
        "releases/digits/01",
        "releases/digits/-1",
        "releases/digits/1/2",
        "releases/digits/1\n",
        "releases/digits/١",
        "releases/digits/" + "9" * 19,
        "releases//1",
        "releases/../1",
        "releases/a/../1",
        "/releases/digits/1",
        "retrained/digits/1",
        "retrained/digits/1/0",
        "retrained/*/1/1",
        "channels/stable",
        "releases.digits",
        "",
    ],
)
def test_nothing_else_is_read_as_a_release(path: str):
    with pytest.raises(ProtocolError):
        names.parse_release(path)


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_could_mean_another_folder_or_other_names_is_refused_everywhere(name: str):
    for make in (names.release_role, names.channel_path, lambda n: names.release_path(n, 1)):
        with pytest.raises(ProtocolError):
            make(name)
    with pytest.raises(ProtocolError):
        names.parse_release(f"releases/{name}/1")
    with pytest.raises(ProtocolError):
        names.parse_channel(f"channels/{name}")
    with pytest.raises(ProtocolError):
        names.check_role(f"releases.{name}")


def test_counters_begin_at_one():
    for counter in (0, -1, 10**18):
        with pytest.raises(ProtocolError):
            names.release_path("digits", counter)


def test_files_of_metadata_read_back_as_role_and_version():
    for role in (*names.TOP_LEVEL, *names.ONLINE, "releases.digits", "releases.3.json"):
        name = names.file_name(role, 12)
        assert names.parse_file(name) == (role, None if role == "timestamp" else 12)
    assert names.file_name("timestamp", 12) == "timestamp.json"


@pytest.mark.parametrize(
    "name",
    ["root.json", "0.root.json", "1.timestamp.json", "1.root", "1.other.json", "../1.root.json", "1.releases..json"],
)
def test_other_file_names_are_refused(name: str):
    with pytest.raises(ProtocolError):
        names.parse_file(name)
