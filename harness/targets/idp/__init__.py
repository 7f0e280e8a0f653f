"""Identity providers that really run: stand-ins for Zitadel on loopback, for tests and for targets on real processes.

Two of them, so that nobody takes the habits of one for the shape of the API: `node` is the npm package `oidc-provider`,
`go` is Zitadel's own engine. Neither has users, keys or grants: that part is a facade, written twice from Zitadel's
documentation, and it proves nothing about a real instance.
"""
