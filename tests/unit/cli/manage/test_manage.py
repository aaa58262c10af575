"""The management commands against a real admin API."""

import asyncio
import json
import re
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.main import main
from cli.manage import client, output
from cli.manage.usage import FILTERS
from services.apimgmt.store.api import DIMENSIONS
from tests.unit.apimgmt.admin.conftest import serve
from tests.unit.apimgmt.admin.support import DECLARED, TOKEN, Api, settings
from tests.unit.apimgmt.admin.test_reports import use

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Api]:
    """The admin API in a thread of its own, since commands wait for its answers."""
    started: list[tuple[Api, asyncio.AbstractEventLoop, asyncio.Event]] = []
    ready = threading.Event()

    async def run() -> None:
        async with serve(settings(tmp_path / "served")) as api:
            await api.app()
            await use(api, 1, "ada@acme", "research")
            await use(api, 2, "bob@acme", "support", promptTokens=100)
            end = asyncio.Event()
            started.append((api, asyncio.get_running_loop(), end))
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert ready.wait(30)
    api, loop, end = started[0]
    yield api
    loop.call_soon_threadsafe(end.set)
    thread.join(30)


@pytest.fixture
def penstock(server: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command against the server; returns exit status, output and messages."""
    monkeypatch.setenv(client.URL_VARIABLE, server.url)
    monkeypatch.setenv(client.TOKEN_VARIABLE, TOKEN)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(arguments)
        printed = capsys.readouterr()
        assert TOKEN not in printed.out + printed.err
        return status, printed.out, printed.err

    return run


def test_keys_from_issue_to_revocation(penstock: Run) -> None:
    status, out, err = penstock("keys", "issue", "acme/bot", "--label", "laptop", "--expires-in", "90d")
    assert status == 0
    assert re.fullmatch(r"psk_[a-z2-7]{16}_\S{43}\n", out)
    key = out.split("_")[1]
    assert key in err
    _, listed, _ = penstock("keys", "list", "acme/bot")
    header, row = listed.splitlines()
    assert header.split()[:3] == ["ID", "LABEL", "STATE"]
    assert row.split()[:4] == [key, "laptop", "active", "ada@acme"]
    status, out, _ = penstock("keys", "rotate", "acme/bot", key, "--grace", "1h", "--json")
    new = json.loads(out)
    assert (status, new["state"]) == (0, "active")
    assert penstock("keys", "revoke", "acme/bot", new["id"])[0] == 0
    _, out, _ = penstock("keys", "list", "acme/bot", "--json")
    assert {k["id"]: k["state"] for k in json.loads(out)} == {key: "inGrace", new["id"]: "revoked"}


def test_a_key_can_go_into_a_file_that_only_the_owner_reads(penstock: Run, tmp_path: Path) -> None:
    file = tmp_path / "key"
    status, out, _ = penstock("keys", "issue", "--developer", "acme/ada@acme", "--output", str(file))
    assert status == 0
    assert "psp_" not in out
    assert file.read_text().startswith("psp_")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    status, _, err = penstock("keys", "issue", "acme/bot", "--output", str(file))
    assert (status, "not there yet" in err) == (2, True)
    status, _, _ = penstock("keys", "issue", "acme/none", "--output", str(tmp_path / "other"))
    assert status == 2
    assert not (tmp_path / "other").exists()


def test_a_key_is_no_argument(penstock: Run) -> None:
    status, _, err = penstock("keys", "revoke", "acme/bot", "psk_" + "a" * 16 + "_" + "A" * 43)
    assert (status, "belongs on no command line" in err) == (2, True)


def test_apps_and_their_subscriptions(penstock: Run) -> None:
    made = penstock(
        "apps", "create", "acme/web", "--team", "support", "--developer", "bob@acme", "--product", "chat"
    )  # fmt: skip
    assert made[:2] == (0, "acme/web: chat\n")
    assert penstock("apps", "subscribe", "acme/web", "gated")[1] == "acme/web: chat, gated (pending)\n"
    assert penstock("apps", "pending")[1].splitlines()[1].split() == ["acme/web", "gated", "support", "bob@acme"]
    assert penstock("apps", "approve", "acme/web", "gated")[1] == "acme/web: chat, gated\n"
    assert penstock("apps", "revoke", "acme/web", "chat")[1] == "acme/web: chat (revoked), gated\n"
    assert penstock("apps", "pending")[1] == "no subscription waits\n"
    rows = penstock("apps", "list")[1].splitlines()
    assert [row.split()[0] for row in rows] == ["APP", "acme/bot", "acme/web"]
    assert json.loads(penstock("apps", "show", "acme/web")[1])["team"] == "support"


def test_lists_of_products_developers_and_teams(penstock: Run) -> None:
    _, out, _ = penstock("products", "list")
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "chat", "gated", "secret"]
    assert json.loads(penstock("products", "show", "chat")[1])["models"] == ["*"]
    _, out, _ = penstock("developers", "list", "acme")
    assert "acme/lead@acme  research  teamLead   -       yes     yes" in out
    assert len(json.loads(penstock("developers", "list", "--json")[1])) == len(DECLARED["developers"])
    assert "other/research" in penstock("teams", "list")[1]
    assert json.loads(penstock("teams", "show", "acme/support")[1])["organization"] == "acme"


def test_the_diff_of_what_is_declared(penstock: Run, server: Api, tmp_path: Path) -> None:
    assert penstock("products", "diff")[0] == 0
    limits = [{**DECLARED["limits"][0], "amount": 7}]
    server.context.settings = settings(tmp_path / "served", limits=limits)
    status, out, _ = penstock("products", "diff")
    assert (status, out) == (1, "~ limits/burst\n    amount: 100 -> 7\n")


def test_usage_is_drawn(penstock: Run) -> None:
    status, out, _ = penstock("usage", "--by", "user", "--since", "2026-09-01", "--bucket", "all")
    assert status == 0
    ada, bob = (next(line for line in out.splitlines() if line.startswith(name)) for name in ("ada@acme", "bob@acme"))
    assert bob.split()[1:4] == ["1", "100", "5"]
    assert bob.count("█") == output.BAR
    assert ada.count("█") == output.BAR * 15 // 105
    _, out, _ = penstock("usage", "--by", "team,user", "--team", "research", "--since", "2026-09-01", "--csv")
    assert out.splitlines()[0].startswith("start,team,user,requests")
    assert len(out.splitlines()) == 2
    found = json.loads(penstock("usage", "--since", "2026-09-01", "--json")[1])
    assert sum(row["requests"] for row in found["items"]) == 2
    assert "nothing was used" in penstock("usage", "--since", "2020-01-01", "--until", "2020-02-01")[1]


def test_the_statement(penstock: Run) -> None:
    status, out, _ = penstock("statement", "--month", "2026-09", "--by", "team")
    assert status == 0
    assert out.splitlines()[-1].startswith("2026-09: $")
    assert json.loads(penstock("statement", "--month", "2026-09", "--json")[1])["month"] == "2026-09"


def test_export_and_import(penstock: Run, tmp_path: Path) -> None:
    file, config = tmp_path / "store.jsonl", tmp_path / "config.yaml"
    assert penstock("export", str(file))[0] == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    config.write_text(json.dumps({"store": {"kind": "sqlite", "path": str(tmp_path / "new.db")}}))
    status, out, _ = penstock("import", str(file), "--config-file", str(config), "--json")
    assert (status, json.loads(out)["records"]) == (0, 2)
    again = penstock("import", str(file), "--config-file", str(config))
    assert (again[0], "documents already" in again[2]) == (2, True)
    remote = penstock("import", str(file))
    assert (remote[0], "documents already" in remote[2]) == (2, True)


def test_the_api_says_what_is_wrong(penstock: Run) -> None:
    status, _, err = penstock("apps", "create", "acme/web", "--team", "nowhere", "--developer", "bob@acme")
    assert status == 2
    assert "team: expected a team of acme that exists (found 'nowhere'); add it, or name one of" in err
    assert penstock("usage", "--by", "nothing")[0] == 2
    assert penstock("keys", "list")[0] == 2


def test_tokens_go_nowhere_in_the_clear(penstock: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "in the clear" in penstock("teams", "list", "--url", "http://192.0.2.1:9010")[2]
    assert "no URL" in penstock("teams", "list", "--url", "ftp://127.0.0.1")[2]
    monkeypatch.delenv(client.TOKEN_VARIABLE)
    assert "set PENSTOCK_ADMIN_TOKEN" in penstock("teams", "list")[2]
    file = tmp_path / "token"
    assert "cannot be read" in penstock("teams", "list", "--token-file", str(file))[2]
    file.write_text("x" * 40)
    assert "not known here" in penstock("teams", "list", "--token-file", str(file))[2]
    file.write_text(TOKEN + "\n")
    assert penstock("teams", "list", "--token-file", str(file))[0] == 0


def test_the_environment_of_this_machine(
    server: Api, penstock: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cli.local.state import StateDir

    monkeypatch.delenv(client.URL_VARIABLE)
    monkeypatch.delenv(client.TOKEN_VARIABLE)
    monkeypatch.setenv("PENSTOCK_STATE_DIR", str(tmp_path / "state"))
    assert "does not run on this machine" in penstock("teams", "list", "--env", "local")[2]
    folder = StateDir(tmp_path / "state" / "local")
    assert folder.acquire()
    folder.write({"admin_url": server.url})
    (folder.path / client.TOKEN_FILE).write_text(TOKEN)
    assert penstock("teams", "list")[0] == 0
    folder._lock.close()  # type: ignore[union-attr]


def test_filters_are_the_dimensions_of_usage() -> None:
    assert FILTERS == DIMENSIONS


@pytest.mark.parametrize(("value", "width"), [(0, 0), (1, 1), (50, 15), (100, 30), (1000, 30)])
def test_bars(value: int, width: int) -> None:
    assert len(output.bar(value, 100)) == width


def test_tables_show_no_control_characters() -> None:
    assert output.table(("A", "B"), [("x\x1b[2J", None)]) == "A         B\nx\\x1b[2J  -"


@pytest.mark.parametrize(
    ("micros", "text"), [(0, "$0.00"), (20, "$0.000020"), (1_500_000, "$1.50"), (-20, "-$0.000020")]
)
def test_money(micros: int, text: str) -> None:
    assert output.money(micros) == text
