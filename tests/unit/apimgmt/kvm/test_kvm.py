"""Key-value maps: sealing, rotation of keys, and references in settings."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.domain import Kind
from services.apimgmt.kvm import KeyValueMaps, KvmError, Sealer, read_settings, references, resolve
from services.apimgmt.store.api import Document
from services.extproc.config import ConfigModel

OLD, NEW, PEPPER = "o" * 32, "n" * 32, "p" * 32
SECRET = "hunter2-secret"


def sealer(**environ: str) -> Sealer:
    return Sealer.from_environ(environ or {"PENSTOCK_KVM_KEY": NEW})


def maps(made: Sealer, **entries: str) -> KeyValueMaps:
    sealed = {key: made.seal("api", key, value) for key, value in entries.items()}
    other = Document(Kind.LIMIT, "", "api", {"name": "api"})
    return KeyValueMaps(made, [other, Document(Kind.KEY_VALUE_MAP, "", "api", {"name": "api", "entries": sealed})])


def test_value_comes_back_and_is_not_in_what_is_stored() -> None:
    made = sealer()
    sealed = made.seal("api", "token", SECRET)
    assert made.open("api", "token", sealed) == SECRET
    assert SECRET not in sealed
    assert made.seal("api", "token", SECRET) != sealed  # nonces differ


@pytest.mark.parametrize(("map_name", "key"), [("api", "other"), ("other", "token"), ("ap", "itoken")])
def test_value_of_one_entry_does_not_open_as_another(map_name: str, key: str) -> None:
    made = sealer()
    with pytest.raises(KvmError, match="another entry"):
        made.open(map_name, key, made.seal("api", "token", SECRET))


def test_any_changed_character_is_noticed() -> None:
    made = sealer()
    sealed = made.seal("api", "token", SECRET)
    for index in range(len(sealed) - 1):  # the last one has bits of no meaning
        changed = sealed[:index] + ("A" if sealed[index] != "A" else "B") + sealed[index + 1 :]
        with pytest.raises(KvmError) as caught:
            made.open("api", "token", changed)
        assert SECRET not in str(caught.value)


def test_rotation_seals_with_the_first_key_and_opens_with_all() -> None:
    before = sealer(PENSTOCK_KVM_KEY=OLD).seal("api", "token", SECRET)
    both = sealer(PENSTOCK_KVM_KEY=f"{NEW}, {OLD}")
    assert both.open("api", "token", before) == SECRET
    assert not both.is_current(before)
    after = both.seal("api", "token", SECRET)
    assert both.is_current(after)
    assert sealer(PENSTOCK_KVM_KEY=NEW).open("api", "token", after) == SECRET
    with pytest.raises(KvmError, match="a key that is not set; add that key to PENSTOCK_KVM_KEY"):
        sealer(PENSTOCK_KVM_KEY=NEW).open("api", "token", before)


def test_pepper_seals_without_a_key_and_opens_beside_one() -> None:
    before = sealer(PENSTOCK_KEY_PEPPER=PEPPER).seal("api", "token", SECRET)
    both = sealer(PENSTOCK_KEY_PEPPER=PEPPER, PENSTOCK_KVM_KEY=NEW)
    assert both.open("api", "token", before) == SECRET
    assert not both.is_current(before)


@pytest.mark.parametrize("environ", [{"PENSTOCK_KVM_KEY": "short-secret"}, {"PENSTOCK_KVM_KEY": f"{NEW},x"}, {"A": ""}])
def test_weak_or_missing_keys_are_refused_without_showing_them(environ: dict[str, str]) -> None:
    with pytest.raises(KvmError, match="PENSTOCK_KVM_KEY") as caught:
        Sealer.from_environ(environ)
    assert "short-secret" not in str(caught.value)
    assert NEW not in str(caught.value)


@pytest.mark.parametrize("sealed", ["", "plain text", "v1.", "v1.AAAA", "v2." + "A" * 60, "v1.\u00e9" + "A" * 60])
def test_what_was_never_sealed_is_refused(sealed: str) -> None:
    with pytest.raises(KvmError, match="key-value map 'api', entry 'token'"):
        sealer().open("api", "token", sealed)


def test_too_long_values_and_broken_text_are_refused() -> None:
    with pytest.raises(KvmError, match="longer than"):
        sealer().seal("api", "token", "x" * (1024 * 1024 + 1))
    with pytest.raises(KvmError, match="no Unicode"):
        sealer().seal("api", "token", "\ud800")


def test_no_representation_shows_a_key_or_value() -> None:
    made = sealer(PENSTOCK_KVM_KEY=f"{NEW},{OLD}")
    text = repr(made) + str(made) + repr(maps(made, token=SECRET))
    assert SECRET not in text
    assert NEW not in text
    assert "api" in text


def test_references_are_replaced_anywhere_in_texts() -> None:
    values = maps(sealer(), token=SECRET, host="h.example", cheeky="${kvm:api/token}")
    given = {
        "url": "https://${kvm:api/host}/x?k=${kvm:api/token}",
        "list": ["${kvm:api/cheeky}", 5, None],
        "${kvm:api/token}": {"plain": "${HOME} $kvm"},
    }
    assert resolve(given, values.value) == {
        "url": f"https://h.example/x?k={SECRET}",
        "list": ["${kvm:api/token}", 5, None],  # values are not looked through again
        "${kvm:api/token}": {"plain": "${HOME} $kvm"},
    }
    assert references(given) == {("api", "host"), ("api", "token"), ("api", "cheeky")}


def test_all_bad_references_are_named_at_once() -> None:
    values = maps(sealer(), token=SECRET)
    with pytest.raises(KvmError) as caught:
        resolve(
            {"a": ["${kvm:api/nope} ${kvm:api/token}"], "b": {"c": "${kvm:none/x}"}, "d": "${kvm:api"}, values.value
        )
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("a[0]: key-value map 'api', entry 'nope' does not exist")
    assert lines[1].startswith("b.c: key-value map 'none', entry 'x' does not exist")
    assert lines[2].startswith("d: expected ${kvm:map/key}, found '${kvm:api'")
    assert len(lines) == 3
    assert SECRET not in str(caught.value)


class Wanted(ConfigModel):
    port: int = 0
    names: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"port": "${kvm:api/token}"}, "port: the entry that stands here does not fit"),
        ({"names": [1, "${kvm:api/token}"]}, "names[1]: the entry that stands here does not fit"),
        ({"port": "x"}, "port: input should be a valid integer"),
        ({"pork": "${kvm:api/token}"}, "pork: the entry that stands here does not fit"),
    ],
)
def test_settings_that_do_not_fit_never_show_a_value(given: dict[str, object], expected: str) -> None:
    with pytest.raises(KvmError) as caught:
        read_settings(Wanted, given, maps(sealer(), token=SECRET).value)
    assert expected in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_settings_that_fit_are_read() -> None:
    assert read_settings(Wanted, {"port": "${kvm:api/port}"}, maps(sealer(), port="80").value) == Wanted(port=80)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.text(alphabet="${}kvm:api/tonex-., ", max_size=60))
def test_any_text_is_resolved_or_refused(text: str) -> None:
    values: Callable[[str, str], str | None] = maps(sealer(), token=SECRET).value
    try:
        assert ("${kvm:" in text) or resolve(text, values) == text
    except KvmError:
        assert "${kvm:" in text
