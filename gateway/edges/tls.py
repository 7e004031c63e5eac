"""The only maker of TLS contexts (style 3.15)."""

import ssl


def client_context(ca: str, certificate: str = "", key: str = "") -> ssl.SSLContext:
    """For connections to a peer whose certificate one in the file `ca` has signed, by TLS 1.2 or newer.

    `certificate` and `key` are files of our own, for peers that ask for one. Raises OSError where a file cannot be
    read or holds none.
    """
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        context.load_cert_chain(certificate, key or None)
    return context
