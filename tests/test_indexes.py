"""What pip's and uv's configuration say, taken together."""

import os
from pathlib import Path

import pytest
from local_index import LocalIndex, make_wheel, only_packages_from

from modelbuild.environment.indexes import (
    narrowing_settings,
    uv_variables,
)
from modelbuild.errors import ModelbuildError
from modelbuild.locking.index_access import IndexAccess
from modelbuild.spec.logins import without_logins


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No configuration at all: an empty home folder, no variables."""
    only_packages_from(monkeypatch)
    for name in list(os.environ):
        if name.endswith(("_proxy", "_PROXY", "CA_BUNDLE")) or name.startswith("SSL_"):
            monkeypatch.delenv(name)
    for name in ("PIP_INDEX_URL", "UV_NO_CONFIG", "UV_HTTP_RETRIES", "PIP_RETRIES"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "etc"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def added(*, resolving: bool = True) -> dict[str, str]:
    """What uv's environment has beyond ours."""
    variables = uv_variables(resolving=resolving)
    return {name: value for name, value in variables.items() if os.environ.get(name) != value}


def pip_file(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = folder / "pip.conf"
    path.write_text(text)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))


def test_without_configuration_uv_gets_nothing_more(bare: Path) -> None:
    assert added() == {}


def test_uv_gets_what_pips_file_says(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = bare / "my, wheels"  # pip splits at spaces, so this one goes by URL
    wheels.mkdir()
    (bare / "plain").mkdir()
    pip_file(
        bare,
        monkeypatch,
        f"""
[global]
index-url = https://me:secret@one.example/simple
extra-index-url =
    https://two.example/simple
    file:///three
cert = /etc/corporate.pem
client-cert = /etc/me.pem
timeout = 12.5
retries = 7
proxy = http://proxy.example:3128
trusted-host = one.example two.example
constraint = {bare}/limits.txt
[install]
find-links = {bare}/plain {bare}/absent {wheels.as_uri()} https://wheels.example/list.html
""",
    )
    assert added() == {
        "UV_DEFAULT_INDEX": "https://me:secret@one.example/simple",
        "UV_INDEX": "https://two.example/simple file:///three",
        "UV_FIND_LINKS": f"file://{bare}/plain,file://{bare}/my%2C%20wheels,"
        "https://wheels.example/list.html",
        "SSL_CERT_FILE": "/etc/corporate.pem",
        "SSL_CLIENT_CERT": "/etc/me.pem",
        "UV_HTTP_TIMEOUT": "12",
        "UV_HTTP_RETRIES": "7",
        "ALL_PROXY": "http://proxy.example:3128",
        "UV_INSECURE_HOST": "one.example two.example",
        "UV_CONSTRAINT": f"file://{bare}/limits.txt",
    }


def test_pips_variables_win_over_its_files(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_file(bare, monkeypatch, "[global]\nindex-url = https://file.example/simple\n")
    assert added()["UV_DEFAULT_INDEX"] == "https://file.example/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.example/simple")
    assert added()["UV_DEFAULT_INDEX"] == "https://variable.example/simple"


def test_uvs_variables_win_over_pip(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://pip-extra.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", str(bare))
    monkeypatch.setenv("PIP_CERT", "/pip.pem")
    monkeypatch.setenv("UV_INDEX_URL", "https://uv.example/simple")
    monkeypatch.setenv("UV_FIND_LINKS", "/uv")
    monkeypatch.setenv("SSL_CERT_FILE", "/uv.pem")
    assert added() == {"UV_INDEX": "https://pip-extra.example/simple"}


@pytest.mark.parametrize("name", ["uv.toml", "pyproject.toml", "home/uv/uv.toml"])
def test_uvs_files_win_over_pip(name: str, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://pip-extra.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", str(bare))
    path = bare.parent / name if "/" in name else bare / name
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = "tool.uv." if name == "pyproject.toml" else ""
    path.write_text(
        f'[[{prefix}index]]\nurl = "https://uv.example/simple"\ndefault = true\n'
        f'[{prefix}pip]\nfind-links = ["/uv"]\n'
    )
    (bare / "below").mkdir()
    monkeypatch.chdir(bare / "below")
    assert added() == {"UV_INDEX": "https://pip-extra.example/simple"}
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    assert added() == {
        "UV_DEFAULT_INDEX": "https://pip.example/simple",
        "UV_INDEX": "https://pip-extra.example/simple",
        "UV_FIND_LINKS": bare.as_uri(),
    }


def test_no_index_leaves_only_find_links(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "true")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://pip-extra.example/simple")
    assert added() == {"UV_DEFAULT_INDEX": "file:///no-index"}


def test_a_certificate_for_requests_is_one_for_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/bundle.pem")
    assert added() == {"SSL_CERT_FILE": "/bundle.pem"}


def test_installing_is_not_narrowed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONSTRAINT", str(bare / "limits.txt"))
    monkeypatch.setenv("UV_EXCLUDE_NEWER", "2020-01-01")
    monkeypatch.setenv("UV_OVERRIDE", "x.txt")
    variables = uv_variables()
    assert {name for name in variables if name.startswith("UV_")} == {"UV_INDEX_STRATEGY"}
    assert variables["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_what_narrows_a_resolution_is_told(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert narrowing_settings() == ()
    monkeypatch.setenv("PIP_CONSTRAINT", "/limits.txt https://me:secret@host.example/limits.txt")
    monkeypatch.setenv("UV_EXCLUDE_NEWER", "2020-01-01")
    user = bare.parent / "home" / "uv" / "uv.toml"
    user.parent.mkdir(parents=True)
    user.write_text('resolution = "lowest"\n')
    (bare / "uv.toml").write_text('resolution = "lowest"\n')  # in the workspace: not told
    assert narrowing_settings() == (
        "pip's configuration: constraint /limits.txt",
        "pip's configuration: constraint https://host.example/limits.txt",
        "UV_EXCLUDE_NEWER: exclude-newer 2020-01-01",
        f"{user}: resolution lowest",
    )


def test_a_configuration_that_pip_cannot_read_is_told(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip_file(bare, monkeypatch, "no section\n")
    with pytest.raises(ModelbuildError, match="pip's configuration can't be read") as caught:
        uv_variables()
    assert str(bare / "pip.conf") in str(caught.value)
    assert caught.value.hint == "See: python -m pip config debug"


def test_a_folder_named_pip_is_not_pip(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / "pip").mkdir()
    (bare / "pip" / "__init__.py").touch()
    (bare / "pip" / "__main__.py").write_text("raise SystemExit('not pip')")
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple")
    assert added() == {"UV_DEFAULT_INDEX": "https://pip.example/simple"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at https://me:pass@host/x", "at https://host/x"),
        ("https://token@host:8080/simple, then", "https://host:8080/simple, then"),
        ("https://me:p@ss@host/", "https://host/"),
        ("https://host/a@b and a@b", "https://host/a@b and a@b"),
        ("at me:pass@host/x", "at host/x"),
    ],
)
def test_credentials_are_not_shown(text: str, expected: str) -> None:
    assert without_logins(text) == expected


@pytest.mark.parametrize("how", ["url", "named index", "netrc"])
def test_an_index_is_opened_with_the_callers_credentials(
    how: str, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bare / "wheels"
    make_wheel(folder, "alpha", "1.0")
    with LocalIndex(folder, user="me", password="s3cret/@") as index:
        if how == "url":
            monkeypatch.setenv("PIP_INDEX_URL", index.url_with_credentials)
        elif how == "named index":
            monkeypatch.setenv("UV_INDEX", f"my-own={index.url}")
            monkeypatch.setenv("UV_INDEX_MY_OWN_USERNAME", "me")
            monkeypatch.setenv("UV_INDEX_MY_OWN_PASSWORD", "s3cret/@")
        else:
            (bare / "netrc").write_text("machine 127.0.0.1 login me password s3cret/@\n")
            (bare / "netrc").chmod(0o600)
            monkeypatch.setenv("NETRC", str(bare / "netrc"))
        access = IndexAccess(variables=uv_variables())
        url = index.url.replace("/simple/", "/files/alpha-1.0-py3-none-any.whl")
        with access.open(url, {"Range": "bytes=0-1"}) as response:
            assert response.read() == b"PK"
        other = url.replace("127.0.0.1", "localhost")
        if how != "netrc":
            with pytest.raises(OSError, match="401"):
                access.open(other)


def test_a_password_does_not_follow_a_redirect_to_another_host(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(bare, "alpha", "1.0")
    with LocalIndex(bare) as storage:
        files = storage.url.replace("127.0.0.1", "localhost").replace("/simple/", "/files/")
        with LocalIndex(bare, user="me", password="s3cret", redirect=files) as index:
            monkeypatch.setenv("PIP_INDEX_URL", index.url_with_credentials)
            url = index.url.replace("/simple/", "/files/alpha-1.0-py3-none-any.whl")
            with IndexAccess(variables=uv_variables()).open(url) as response:
                assert response.read(2) == b"PK"
        assert storage.authorizations == {None}
