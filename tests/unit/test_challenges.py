"""WWW-Authenticate as registries really send it, realms, and token services' answers."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from proxy.errors import Unavailable
from proxy.upstream.auth import Challenge, parse_challenges, read_token, realm_url

HUB = (
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
    'scope="repository:library/alpine:pull",error="invalid_token"'
)
GHCR = 'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull"'


def one(header):
    (challenge,) = parse_challenges([header])
    return challenge


def test_docker_hub():
    assert one(HUB) == Challenge(
        "bearer",
        {
            "realm": "https://auth.docker.io/token",
            "service": "registry.docker.io",
            "scope": "repository:library/alpine:pull",
            "error": "invalid_token",
        },
    )


def test_ghcr():
    assert one(GHCR).params["scope"] == "repository:user/image:pull"


@pytest.mark.parametrize(
    ("header", "scheme", "params"),
    [
        ('Bearer realm="https://e/t", service="e"', "bearer", {"realm": "https://e/t", "service": "e"}),
        ('BEARER Realm="https://e/t"', "bearer", {"realm": "https://e/t"}),
        ("Bearer realm=https://e/t?a,service=e", "bearer", {"realm": "https://e/t?a", "service": "e"}),
        ('Bearer realm = "r" , service = "s"', "bearer", {"realm": "r", "service": "s"}),
        (
            'Bearer realm="a,b", scope="repository:x:pull,push"',
            "bearer",
            {"realm": "a,b", "scope": "repository:x:pull,push"},
        ),
        (r'Basic realm="say \"hi\" and \\"', "basic", {"realm": 'say "hi" and \\'}),
        ('Basic realm=""', "basic", {"realm": ""}),
        ("Negotiate", "negotiate", {}),
        ('  ,, Basic realm="x" ,', "basic", {"realm": "x"}),
    ],
)
def test_one_challenge(header, scheme, params):
    assert one(header) == Challenge(scheme, params)


def schemes(*headers):
    return [challenge.scheme for challenge in parse_challenges(list(headers))]


def test_several_challenges_in_one_header_and_in_several():
    assert schemes('Basic realm="x", Bearer realm="https://e/t",service="s"') == ["basic", "bearer"]
    assert schemes('Basic realm="x"', GHCR) == ["basic", "bearer"]
    assert schemes(f'NTLM, Negotiate, {GHCR}, Basic realm="x"') == ["ntlm", "negotiate", "bearer", "basic"]
    found = parse_challenges(['Basic realm="a, Bearer realm=b", Bearer realm="https://e/t"'])
    assert found == [Challenge("basic", {"realm": "a, Bearer realm=b"}), Challenge("bearer", {"realm": "https://e/t"})]


@pytest.mark.parametrize("token", ["abc", "abc==", "YII+/x-._~=", "oYG2MIGzoAMKAQ/+=="])
def test_a_token68_hides_nothing_that_follows(token):
    """RFC 9110 section 11.2: letters, digits, `-._~+/`, then any number of `=`."""
    found = parse_challenges([f'Negotiate {token}, Basic realm="x"'])
    assert found[0].scheme == "negotiate"
    assert found[-1] == Challenge("basic", {"realm": "x"})


def test_an_empty_list_element_between_parameters_hides_nothing():
    """RFC 9110 section 5.6.1.2: a recipient must accept them."""
    assert one('Bearer realm="https://e/t",, service="s"').params == {"realm": "https://e/t", "service": "s"}


@pytest.mark.parametrize("header", ["", ",", '"', "=", "Bearer=", 'Bearer realm="unterminated', "\xe4 x", "1abc", "\0"])
def test_what_cannot_be_read_is_passed_over(header):
    assert all(not challenge.params for challenge in parse_challenges([header]))


@given(st.lists(st.text(max_size=80) | st.text('Bearc "\\=,\t', max_size=80), max_size=4))
def test_any_headers_give_some_challenges(headers):
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
        assert all(name == name.lower() for name in challenge.params)


@pytest.mark.parametrize(
    "unit",
    [
        "a ",
        "a,",
        'a="',
        'a="\\',
        " ",
        ",",
        "a=",
        "a b=c",
        '"',
        "\\",
        'a="b" ',
        "a" * 7,
        "-",
        'B a="b",',
        "a =",
        "a = b ",
    ],
)
def test_hostile_headers_end_quickly(unit):
    began = time.process_time()
    for start in ("", "Bearer ", 'Bearer realm="', "Bearer a="):
        parse_challenges([start + unit * (40_000 // len(unit))])
    assert time.process_time() - began < 2


# Realms

ORIGIN = URL("https://registry.example/")


def test_a_realm_is_asked_with_service_and_scope_beside_its_own_query():
    url = realm_url(ORIGIN, "https://auth.example/token?account=a", "registry.example", "repository:a/b:pull")
    assert (url.scheme, url.host, url.path) == ("https", "auth.example", "/token")
    assert dict(url.query) == {"account": "a", "service": "registry.example", "scope": "repository:a/b:pull"}
    assert str(realm_url(ORIGIN, "https://auth.example/token", "", "")) == "https://auth.example/token"


def test_plain_http_only_behind_plain_http():
    assert realm_url(URL("http://registry.example"), "http://auth.example/t", "", "").scheme == "http"
    with pytest.raises(Unavailable):
        realm_url(ORIGIN, "http://auth.example/t", "", "")


@pytest.mark.parametrize(
    "realm",
    ["", "token", "/token", "//auth.example/t", "file:///etc/passwd", "ftp://a/t", "javascript:alert(1)", "https://"]
    + ["https:///t", "https://[", "https://a:99999/", "https://a:b/", "http:", "\0", "https://xn--\x7f/"],
)
def test_a_realm_that_is_no_https_url(realm):
    with pytest.raises(Unavailable):
        realm_url(ORIGIN, realm, "s", "c")


@given(st.text(max_size=40) | st.text("https:/[]@.x-%\\?#", max_size=40).map(lambda text: f"https://{text}"))
def test_any_realm_is_a_url_or_unavailable(realm):
    try:
        assert realm_url(ORIGIN, realm, "s", "c").scheme == "https"
    except Unavailable as error:
        assert error.status == 503


# Tokens

URL_OF_TOKENS = URL("https://auth.example/token")


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_a_token_lives_a_little_shorter_than_it_is_said(field):
    token = read_token(URL_OF_TOKENS, json.dumps({field: "abc", "expires_in": 300}).encode())
    assert token.header == "Bearer abc"
    assert 290 < token.expires - time.monotonic() < 296
    assert 50 < read_token(URL_OF_TOKENS, b'{"token":"abc"}').expires - time.monotonic() < 56


@pytest.mark.parametrize("lifetime", [0.001, 1, -5])
def test_a_short_life_is_still_long_enough_for_one_request(lifetime):
    body = json.dumps({"token": "abc", "expires_in": lifetime}).encode()
    assert 0 < read_token(URL_OF_TOKENS, body).expires - time.monotonic() <= 1


BAD_ANSWERS = {
    "empty": b"",
    "page": b"<html>",
    "no object": b"[]",
    "null": b"null",
    "none": b"{}",
    "empty token": b'{"token":""}',
    "number": b'{"token":5}',
    "header injection": b'{"token":"a\\r\\nX: y"}',
    "not ascii": '{"token":"\xe4"}'.encode(),
    "not utf-8": b'{"token":"\xff"}',
    "deep": b"[" * 100_000,
    "lifetime is a list": b'{"token":"a","expires_in":[1]}',
    "lifetime is a word": b'{"token":"a","expires_in":"soon"}',
    "lifetime beyond floats": b'{"token":"a","expires_in":1' + b"0" * 400 + b"}",
}


@pytest.mark.parametrize("body", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_an_answer_without_a_usable_token(body):
    with pytest.raises(Unavailable):
        read_token(URL_OF_TOKENS, body)


def test_no_lifetime_makes_a_token_eternal_by_accident():
    """NaN compares as false with everything: a token with it would never be asked for again."""
    try:
        token = read_token(URL_OF_TOKENS, b'{"token":"abc","expires_in":NaN}')
    except Unavailable:
        return
    assert token.expires == token.expires
