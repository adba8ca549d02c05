"""Postgres URLs: no password is shown, whatever is wrong, and what is read is exactly what was written."""

import logging
import os
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from duramen import Runtime
from duramen._stores import libpq
from duramen._stores.url import Target, parse_target
from duramen.errors import InvalidArgument
from tests.fuzz.effort import effort


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the variables nor the files of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(libpq, "_warned", set[str]())


def passed(target: Target) -> dict[str, str]:
    """What the engine is given."""
    query = target.location.partition("?")[2].replace("+", "%2B")
    return {name: ",".join(values) for name, values in parse_qs(query, strict_parsing=True).items()}


def read(query: str = "", place: str = "ann:s3cret@db.example/app") -> dict[str, str]:
    return passed(parse_target(f"postgresql://{place}{'?' if query else ''}{query}"))


# -- passwords -----------------------------------------------------------------------------------------------


def said_of(url: str) -> tuple[str, Target | None]:
    """All that may be printed of a URL."""
    try:
        target = parse_target(url)
    except InvalidArgument as refused:
        frames = traceback.walk_tb(refused.__traceback__)
        # Whoever has written the URL has it in a variable; the library's frames have not.
        ours = [frame.f_locals for frame, _ in frames if frame.f_code.co_filename != __file__]
        chain = f"{refused.__context__!r} {refused.__cause__!r}"
        return f"{refused} {refused!r} {ours!r} {chain}", None
    return f"{target} {target!r} {Runtime(url)!r}", target


def pieces(password: str) -> set[str]:
    return {password[at : at + 4] for at in range(len(password) - 3)}


texts = st.text(st.characters(exclude_characters="\0"), max_size=16) | st.text(
    st.sampled_from("aZ09@:/?#[]%&=+, \\'\"\t\n%41é漢\u202e.;-_~!$*()"), max_size=20
)
PLACES = (
    "postgresql://ann:{}@db.example/app",
    "postgres://ann:{}@db.example:5433,db2.example/app?schema=jobs",
    "postgresql://ann:{}@[::1]:5433/app",
    "postgresql://db.example/app?user=ann&password={}",
    "postgresql://ann@db.example/app?password={}&sslmode=require",
)


@effort(600)
@given(place=st.sampled_from(PLACES), password=texts, raw=st.booleans())
@example(PLACES[0], "Xq7@9zT4", True)
@example(PLACES[0], "Xq7/9zT4", True)
@example(PLACES[0], "@Xq79zT4", True)
@example(PLACES[0], "Xq7?9zT4=1", True)
@example(PLACES[0], "Xq7#9zT4", True)
@example(PLACES[0], "Xq7:9zT4", True)
@example(PLACES[0], "Xq7@9zT4/Ww8", True)
@example(PLACES[0], "Xq%419zT4", True)
@example(PLACES[0], "Xq%zz9zT4", True)
@example(PLACES[0], "Xq7 9zT4", True)
@example(PLACES[3], "a+b", True)
@example(PLACES[3], "a+b", False)
@example(PLACES[3], "Xq7@9zT4", True)
@example(PLACES[3], "Xq7&9zT4", True)
@example(PLACES[3], "Xq7&9zT4=1", True)
@example(PLACES[3], "Xq7=9zT4", True)
@example(PLACES[4], "Xq7#9zT4", True)
@example(PLACES[1], "\ud800Xq79zT4", True)
def test_a_password_is_used_exactly_or_the_url_is_refused_and_it_is_never_shown(
    place: str, password: str, raw: bool
) -> None:
    try:
        written = password if raw else quote(password, safe="")
    except UnicodeEncodeError:
        written = password
    said, target = said_of(place.format(written))
    # What is said of any password: the sentences and the other parts of the URL.
    plain = {said_of(place.format(other))[0] for other in ("", "@", "%", "x:x", "&x=1", "&x", "#", "x")}
    assert not [each for each in pieces(password) if each in said and not any(each in one for one in plain)]
    if not raw:
        assert target is not None or any("\ud800" <= each <= "\udfff" for each in password)
    if target is not None:
        # One that is written raw and has escapes in it cannot be told from one that is encoded.
        expected = unquote(password) if raw else password
        assert passed(target).get("password", "") == expected


@pytest.mark.parametrize(
    "url",
    [
        "hunter2://ann@h/db", "ann:hun://ter2@h/db", "sqlite://ann:hunter2@h/db", "sqlite://ann:hun/ter2@h/db",
        "postgresql://ann:hunter2", "postgresql://ann:hunter2@h:hunter2/db", "postgresql://ann:x@h/db?hunter2",
        "postgresql://ann:x@h/db?hunter2=1", "postgresql://ann:x@h/db?sslmode=hunter2",
        "postgresql://ann:x@h/db?pool_size=hunter2", "postgresql://ann:x@h/db?port=hunter2",
        "postgresql+psycopg://ann:hunter2@h/db", "mysql://ann:hunter2@h/db", "hunter2",
        "postgresql://ann:hunter2@h/db?sslcert=hunter2", "postgresql://ann:%ff%hunter2@h/db",
        "postgresql://ann:hunter2%ff@h/db", "postgresql://ann:hunter2@[h/db", "postgresql://ann:hunter2@h,/db",
        b"postgresql://ann:hunter2@h/db", Path("postgresql://ann:hunter2@h/db"), ["postgresql://ann:hunter2@h/db"],
    ],
)  # fmt: skip
def test_what_is_refused_is_not_repeated(url: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_target(url)
    assert "ter2" not in str(refused.value)


def test_a_refused_url_says_how_to_write_it() -> None:
    with pytest.raises(InvalidArgument, match=r"percent-encode .*urllib\.parse\.quote"):
        parse_target("postgresql://ann:a@b@h/db")


def test_a_runtime_leaves_no_url_in_the_frames_of_its_refusal() -> None:
    def secret() -> str:
        return "postgresql://ann:hun@ter2@h/db"

    with pytest.raises(InvalidArgument) as refused:
        Runtime(secret())
    with pytest.raises(InvalidArgument) as later:
        Runtime(secret().replace("n@t", "nt"), lease=-1)
    for error in (refused.value, later.value):
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename != __file__:
                assert "ter2" not in repr(frame.f_locals), frame


# -- what a URL says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://ann:x@h/db", "postgresql://ann@h:5432/db"),
        ("postgresql://ann@h", "postgresql://ann@h:5432/ann"),
        ("postgresql://ann@h:1,g,[::1]:3/db", "postgresql://ann@h:1,g:5432,[::1]:3/db"),
        ("postgresql://ann@%2Frun%2Fpg/db", "postgresql://ann@%2Frun%2Fpg:5432/db"),
        ("postgresql://h/db?user=ann", "postgresql://ann@h:5432/db"),
        ("postgresql://x@h/db?user=ann&host=g&port=9&dbname=e", "postgresql://ann@g:9/e"),
        ("postgresql://ann%40corp@h/db", "postgresql://ann%40corp@h:5432/db"),
        ("postgresql://ann@/db?hostaddr=127.0.0.1&port=7", "postgresql://ann@127.0.0.1:7/db"),
        ("postgresql://ann@h/a%2Fb", "postgresql://ann@h:5432/a%2Fb"),
    ],
)
def test_the_place_for_people(url: str, place: str) -> None:
    assert str(parse_target(url)) == place
    assert str(parse_target(place)) == place


# -- libpq's parameters --------------------------------------------------------------------------------------

# Each keyword of the manual: what is given, and what the engine gets for it.
SUPPORTED: dict[str, tuple[str, dict[str, str]]] = {
    "host": ("g.example", {"host": "g.example"}),
    "hostaddr": ("127.0.0.9", {"hostaddr": "127.0.0.9", "host": "db.example"}),
    "port": ("5499", {"port": "5499"}),
    "dbname": ("other", {"dbname": "other"}),
    "user": ("bea", {"user": "bea"}),
    "password": ("a+b", {"password": "a+b"}),
    "passfile": ("/nowhere/at/all", {}),
    "channel_binding": ("require", {"channel_binding": "require"}),
    "connect_timeout": ("7", {"connect_timeout": "7"}),
    "options": ("-c%20geqo%3Doff", {"options": "-c geqo=off"}),
    "application_name": ("shop", {"application_name": "shop"}),
    "fallback_application_name": ("shop", {"application_name": "shop"}),
    "keepalives": ("0", {"keepalives": "0"}),
    "keepalives_idle": ("77", {"keepalives_idle": "77"}),
    "keepalives_interval": ("7", {"keepalives_interval": "7"}),
    "keepalives_count": ("5", {"keepalives_retries": "5"}),
    "tcp_user_timeout": ("2500", {"tcp_user_timeout": "3"}),
    "sslmode": ("verify-full", {"sslmode": "require"}),
    "sslnegotiation": ("postgres", {"sslnegotiation": "postgres"}),
    "sslrootcert": ("/ca.pem", {}),
    "target_session_attrs": ("primary", {"target_session_attrs": "read-write"}),
    "load_balance_hosts": ("random", {"load_balance_hosts": "random"}),
}
UNSUPPORTED = {
    "require_auth": "scram-sha-256", "client_encoding": "LATIN1", "replication": "database",
    "gssencmode": "require", "krbsrvname": "x", "gsslib": "gssapi", "gssdelegation": "1", "requiressl": "1",
    "sslcompression": "1", "sslcert": "/c.pem", "sslkey": "/k.pem", "sslpassword": "x",
    "sslcertmode": "require", "sslkeylogfile": "/log", "sslcrl": "/crl", "sslcrldir": "/crls", "sslsni": "0",
    "requirepeer": "postgres", "ssl_min_protocol_version": "TLSv1.3", "ssl_max_protocol_version": "TLSv1.2",
    "min_protocol_version": "3.2", "max_protocol_version": "2.0", "scram_client_key": "x",
    "scram_server_key": "x", "oauth_issuer": "x", "oauth_client_id": "x", "oauth_client_secret": "x",
    "oauth_scope": "x",
}  # fmt: skip
HARMLESS = {
    "client_encoding": "UTF8", "replication": "false", "gssencmode": "prefer", "sslcompression": "0",
    "sslcertmode": "allow", "sslsni": "1", "ssl_min_protocol_version": "TLSv1.2", "requiressl": "0",
    "ssl_max_protocol_version": "TLSv1.3", "min_protocol_version": "3.0", "max_protocol_version": "latest",
    "gssdelegation": "0",
}  # fmt: skip


def test_every_keyword_has_its_line() -> None:
    assert {*SUPPORTED, "service", "servicefile"} == set(libpq.TAKEN)
    assert set(UNSUPPORTED) == set(libpq.UNSUPPORTED)


@pytest.mark.parametrize("name", SUPPORTED)
def test_what_is_supported_reaches_the_engine(name: str) -> None:
    value, expected = SUPPORTED[name]
    got = read(f"{name}={value}")
    assert {each: got.get(each) for each in expected} == expected


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} in the URL is not supported: .{{10}}"):
        read(f"{name}={UNSUPPORTED[name]}")


@pytest.mark.parametrize("name", HARMLESS)
def test_what_asks_for_what_is_so_anyway_is_taken(name: str) -> None:
    assert read(f"{name}={HARMLESS[name]}") == read()


@pytest.mark.parametrize(
    "name", [name for name, variable in libpq.TAKEN.items() if variable and name in SUPPORTED]
)
def test_variables_are_defaults(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variable = libpq.TAKEN[name]
    assert variable is not None
    value, expected = SUPPORTED[name]
    monkeypatch.setenv(variable, unquote(value))
    bare = "h/" if name == "hostaddr" else "/"
    expected = {each: text for each, text in expected.items() if each != "host" or name == "host"}
    got = read(place=bare)
    assert {each: got.get(each) for each in expected} == expected
    # The URL has the last word.
    other = {"options": "-c%20geqo%3Don", "sslmode": "disable", "target_session_attrs": "any"}.get(name)
    if other:
        assert read(f"{name}={other}", bare)[name] == unquote(other)


@pytest.mark.parametrize("name", [name for name, rule in libpq.UNSUPPORTED.items() if rule.variable])
def test_variables_that_have_no_effect_are_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    rule = libpq.UNSUPPORTED[name]
    assert rule.variable is not None
    monkeypatch.setenv(rule.variable, UNSUPPORTED[name])
    if rule.strict:
        with pytest.raises(InvalidArgument, match=f"the variable {rule.variable} is not supported: .{{10}}"):
            read()
    else:
        read()
        read()
        assert caplog.text.count(rule.variable) == 1
    # Said of this store, it does not matter what is said of others.
    if name in HARMLESS:
        caplog.clear()
        read(f"{name}={HARMLESS[name]}")
        assert not caplog.records


@pytest.mark.parametrize("variable", ["PGTZ", "PGDATESTYLE", "PGGEQO"])
def test_variables_of_sessions_are_named_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    monkeypatch.setenv(variable, "x")
    read()
    assert variable in caplog.text
    assert {each.levelno for each in caplog.records} == {logging.WARNING}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("target_session_attrs", "any, read-write, read-only, primary, standby"),
        ("sslmode", "disable, allow, prefer, require, verify-ca, verify-full"),
        ("channel_binding", "disable, prefer, require"), ("load_balance_hosts", "disable, random"),
        ("sslnegotiation", "postgres, direct"), ("connect_timeout", "whole number"),
        ("keepalives", "whole number"),
        ("port", "1 to 65535"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_answered_with_the_right_ones(name: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        read(f"{name}=perhaps")


def test_a_misspelt_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(InvalidArgument, match="did you mean 'sslmode'"):
        read("sslmod=require")


def test_authorities_of_the_system() -> None:
    target = parse_target("postgresql://ann@h/db?sslrootcert=system")
    assert target.options == {"tls": "host"}
    assert passed(target)["sslmode"] == "require"
    with pytest.raises(InvalidArgument, match="verify-full"):
        read("sslrootcert=system&sslmode=require")
    with pytest.raises(InvalidArgument, match="needs sslmode"):
        read("sslnegotiation=direct")


# -- services and files of passwords -------------------------------------------------------------------------


def test_a_service_is_between_the_url_and_the_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".pg_service.conf").write_text(
        "# ours\n[other]\nhost=no\n\n[shop]\nhost=s.example\nport=77\nuser=sue\n"
        "application_name=from service\n[z]\nport=1\n"
    )
    monkeypatch.setenv("PGUSER", "eve")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "9")
    got = read("service=shop", "/app")
    assert (got["host"], got["port"], got["user"], got["connect_timeout"]) == ("s.example", "77", "sue", "9")
    assert read("service=shop", "bob@u.example/app")["host"] == "u.example"
    monkeypatch.setenv("PGSERVICE", "shop")
    assert read(place="/app")["application_name"] == "from service"
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "elsewhere"))
    with pytest.raises(InvalidArgument, match="elsewhere"):
        read()
    monkeypatch.setenv("PGSYSCONFDIR", str(tmp_path / "etc"))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "pg_service.conf").write_text("[shop]\nhost=etc.example\n")
    assert read(place="/app")["host"] == "etc.example"


@pytest.mark.parametrize(
    "line", ["hunter2", "hunter2=1", "ldap://hunter2", "service=hunter2", "user = hunter2"]
)
def test_a_line_that_cannot_be_read_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / ".pg_service.conf").write_text(f"[shop]\nhost=h\n{line}\n")
    with pytest.raises(InvalidArgument, match="line 3") as refused:
        read("service=shop")
    assert "hunter2" not in str(refused.value)


def passwords(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / ".pgpass"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("line", "password"),
    [
        ("h:5432:db:ann:pw", "pw"), ("*:*:*:*:pw", "pw"), ("h:5432:db:bob:pw", None), ("g:*:*:*:pw", None),
        ("# h:5432:db:ann:no\nh:5432:db:ann:pw", "pw"), ("h:5432:db:ann:p\\:w\\\\", "p:w\\"),
        ("h:5432:db:ann:p:w", "p:w"),
        ("h:5432:db:ann:first\n*:*:*:*:second", "first"), ("h:5432:db", None), ("", None),
        ("\\*:*:*:*:pw", None),
        ("h:5432:db:ann:p w ", "p w "), ("h:5432:db:ann:é漢", "é漢"),
    ],
)  # fmt: skip
def test_a_file_of_passwords(tmp_path: Path, line: str, password: str | None) -> None:
    passwords(tmp_path, line + "\n")
    assert read(place="ann@h/db").get("password") == password


def test_other_passwords_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords(tmp_path, "*:*:*:*:file\n")
    monkeypatch.setenv("PGPASSWORD", "variable")
    assert read(place="ann@h/db")["password"] == "variable"
    assert read(place="ann:url@h/db")["password"] == "url"


def test_a_file_that_others_can_read_is_ignored_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    passwords(tmp_path, "*:*:*:*:pw\n", 0o644)
    assert "password" not in read(place="ann@h/db")
    assert "chmod 0600" in caplog.text


def test_hosts_with_different_passwords_are_no_store(tmp_path: Path) -> None:
    path = passwords(tmp_path, "h:*:*:*:one\ng:*:*:*:two\n")
    for hosts in ("h,g", "h,k"):
        with pytest.raises(InvalidArgument, match="different passwords") as refused:
            read(place=f"ann@{hosts}/db")
        assert "one" not in str(refused.value).replace("one password", "")
    path.write_text("h:*:*:*:same\ng:*:*:*:same\n")
    assert read(place="ann@h,g/db")["password"] == "same"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    password=st.text(
        st.characters(
            exclude_characters="\0\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", exclude_categories=["Cs"]
        ),
        min_size=1,
    )
)
def test_any_password_of_a_file(tmp_path: Path, password: str) -> None:
    passwords(tmp_path, "h:5432:db:ann:" + password.replace("\\", "\\\\").replace(":", "\\:") + "\n")
    said, target = said_of("postgresql://ann@h/db")
    assert target is not None
    assert passed(target)["password"] == password
    assert not [
        each
        for each in pieces(password)
        if each in said and each not in said_of("postgresql://ann:x@h/db")[0]
    ]
