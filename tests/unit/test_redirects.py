"""Where a Location leads: every escape stays, nothing but http and https, never from https to http."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from proxy.errors import Unavailable
from proxy.upstream.egress import next_url

HERE = URL("https://registry.example/v2/a/blobs/sha256:ab?ns=x", encoded=True)
SIGNED = (
    "https://s3.dualstack.eu-west-1.amazonaws.com/containers/images/sha256:ab"
    "?X-Amz-Credential=AK%2F2026%2Feu&X-Amz-Signature=a%2Bb%3D&tilde=%7E~&plus=+&lower=%2f"
)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (SIGNED, SIGNED),
        ("http+", "https://registry.example/v2/a/blobs/http+"),
        (
            "/artifacts-downloads/namespaces/x%2Fy/abc=_-",
            "https://registry.example/artifacts-downloads/namespaces/x%2Fy/abc=_-",
        ),
        ("//other.example/x%2e?y=%20", "https://other.example/x%2e?y=%20"),
        ("?page=2", "https://registry.example/v2/a/blobs/sha256:ab?page=2"),
        ("sha256:cd", None),  # a scheme of its own, by RFC 3986
        ("./sha256:cd", "https://registry.example/v2/a/blobs/sha256:cd"),
        ("../manifests/x", "https://registry.example/v2/a/manifests/x"),
        ("/a/%2e%2e/b", "https://registry.example/a/%2e%2e/b"),
        ("/a//b", "https://registry.example/a//b"),
        ("/a;?b", "https://registry.example/a;?b"),
        ("https://other.example/a;?b;", "https://other.example/a;?b;"),
        ("HTTPS://Other.Example/Path", "https://other.example/Path"),
        ("https://other.example:8443/x", "https://other.example:8443/x"),
        ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
        ("https://user:pass@other.example/x%2Fy?z=%2F", "https://other.example/x%2Fy?z=%2F"),
        ("https://user@other.example/", "https://other.example/"),
    ],
)
def test_locations(location, target):
    if target is None:
        with pytest.raises(Unavailable):
            next_url(HERE, location)
        return
    url = next_url(HERE, location)
    # Host names have no case, all the rest stays byte for byte.
    assert str(url).replace("Other.Example", "other.example") == target
    assert url.raw_user is None
    assert url.raw_password is None


def test_a_location_keeps_its_escapes_on_the_wire():
    assert next_url(HERE, SIGNED).raw_path_qs == SIGNED.partition("amazonaws.com")[2]


@pytest.mark.parametrize(
    "location",
    ["ftp://a/x", "file:///etc/passwd", "gopher://a/", "javascript:alert(1)", "data:,x", "mailto:a@b", "unix:/run/x"]
    + ["https://a:99999/", "https://a:b/", "https://[", "https://[::1/x", "https://a:-1/"]
    + ["http://:80/", "https://@/x"],
)
def test_what_is_no_http_url(location):
    with pytest.raises(Unavailable):
        next_url(HERE, location)


@pytest.mark.parametrize("location", ["https://", "https:///x", "https:x", "///x"])
def test_a_location_without_a_host_leads_to_no_other_host(location):
    assert next_url(HERE, location).host == HERE.host


@pytest.mark.parametrize("location", ["http://registry.example/x", "http://other.example/", "HTTP://other.example/"])
def test_never_from_https_to_http(location):
    with pytest.raises(Unavailable) as refused:
        next_url(HERE, location)
    assert refused.value.reason().isascii()
    plain = URL("http://registry.example/")
    assert next_url(plain, location).scheme == "http"
    assert next_url(plain, "https://other.example/").scheme == "https"


@pytest.mark.parametrize(
    "location",
    ["", " ", "/a b", "/a\r\nX: y", "/a\nb", "/a\tb", "/a\0b", "/a\x7f", "/\xe4", "https://\xe4.example/", "/\udcff"],
)
def test_control_characters_blanks_and_other_scripts(location):
    if location == "":
        # An empty reference means this very document: a loop the hop limit ends, not a new place.
        assert next_url(HERE, location).host == HERE.host
        return
    with pytest.raises(Unavailable):
        next_url(HERE, location)


def test_no_secret_of_a_redirect_is_in_the_sentence():
    with pytest.raises(Unavailable) as refused:
        next_url(HERE, "http://user:pass@other.example/secret?token=abc")
    assert "pass" not in refused.value.message
    assert "secret" not in refused.value.message
    assert "abc" not in refused.value.message


@pytest.mark.parametrize(
    "host", ["xn--", "xn--a", "xn--\\", "xn--zzzzzz99999999", "a..b", "-", "%00", "%ff", "*", "a" * 300]
)
def test_a_host_that_is_no_name_is_a_url_or_unavailable(host):
    try:
        assert next_url(HERE, f"https://{host}/x").scheme == "https"
    except Unavailable as error:
        assert error.status == 503


@given(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x80), max_size=40)
    | st.text("htps:/[]@.x-n%\\?#;1", max_size=30)
)
def test_any_location_is_a_place_or_unavailable(location):
    for text in (location, f"https://{location}"):
        try:
            url = next_url(HERE, text)
        except Unavailable as error:
            assert error.reason().isascii()
        else:
            assert url.scheme == "https"
            assert url.host
            assert url.raw_user is None


SAFE = "abcXYZ019-._~!$&'()*+,;=:@"
SEGMENT = st.lists(st.sampled_from([*SAFE, "%2F", "%2f", "%20", "%E4", "%25", "%7e"]), min_size=1, max_size=8).map(
    "".join
)


@given(st.lists(SEGMENT.filter(lambda s: s not in (".", "..")), min_size=1, max_size=4).map("/".join), SEGMENT)
def test_escapes_stay_byte_for_byte(path, query):
    for location in (f"/{path}?{query}", f"https://other.example/{path}?{query}", f"//other.example/{path}?{query}"):
        assert next_url(HERE, location).raw_path_qs == f"/{path}?{query}"
