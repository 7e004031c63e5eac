"""The reference page of TLS profiles: profile by protocol version by suite, from the table of `wire.tls_profiles`."""

from collections.abc import Iterable

from gateway.markdown import code, table
from gateway.wire.tls_profiles import DEFAULT_PROFILE, PROFILES, Profile, Version


def profiles() -> Iterable[str]:
    """The body of the page."""
    yield (
        "By which versions and suites the gateway speaks TLS: `profile` in `tls`, of all listeners or of one. Suites "
        "stand in our order, and ours goes before the caller's."
    )
    yield ""
    yield from table(
        ("Profile", "PS3.15", "Standing", *map(str, Version), "For"),
        (
            (
                code(profile.name) + (" (default)" if profile.name == DEFAULT_PROFILE else ""),
                f"{profile.section} {profile.title}",
                profile.standing,
                *("yes" if profile.suites_of(version) else "no" for version in Version),
                profile.when,
            )
            for profile in PROFILES.values()
        ),
    )
    yield ""
    yield (
        "The suites of TLS 1.3 are the same three wherever it is spoken: Python's `ssl` cannot choose among them. "
        "Handshakes of TLS 1.3 leave no session behind: each proves itself anew."
    )
    yield ""
    for profile in PROFILES.values():
        yield from _profile(profile)


def _profile(profile: Profile) -> Iterable[str]:
    yield f"## {profile.name}"
    yield ""
    yield f"{profile.title} (PS3.15 {profile.section}, {profile.standing}): {profile.when}."
    yield ""
    if profile.left_out:
        yield f"Not offered: {profile.left_out}."
        yield ""
    if profile.security_level:
        yield "Certificates with keys below RSA 2048 or EC 224, or signed by SHA-1, are refused, ours and callers'."
    else:
        yield (
            "Certificates are taken whatever their keys and signatures are worth: TLS before 1.2 signs by SHA-1, and "
            "OpenSSL allows that only together with the rest. The log warns of it at every start."
        )
    yield ""
    openssl = {suite.iana: suite for suite in profile.suites}
    offered = dict.fromkeys(
        name for version in sorted(Version, reverse=True) for name in profile.suites_of(version)
    )  # fmt: skip
    yield from table(
        ("Suite", "OpenSSL", "Our key", *map(str, Version)),
        (
            (
                code(name),
                code(openssl[name].openssl if name in openssl else name),
                str(openssl[name].needs) if name in openssl else "RSA or EC",
                *("yes" if name in profile.suites_of(version) else "" for version in Version),
            )
            for name in offered
        ),
    )
    yield ""
