"""httpx for cleartext, straight to where it is asked: reading what a machine trusts takes 50 ms."""

import ssl
from functools import partial

import httpx

NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts no certificate; made once, where each client of httpx reads those of all authorities."""

get = partial(httpx.get, verify=NOBODY, trust_env=False)
post = partial(httpx.post, verify=NOBODY, trust_env=False)
request = partial(httpx.request, verify=NOBODY, trust_env=False)
stream = partial(httpx.stream, verify=NOBODY, trust_env=False)
Client = partial(httpx.Client, verify=NOBODY, trust_env=False)
AsyncClient = partial(httpx.AsyncClient, verify=NOBODY, trust_env=False)
