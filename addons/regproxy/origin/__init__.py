"""The origin room: the proxy's own requests to registries, and the only place that opens them.

`resolver` decides where a name leads and refuses addresses that a registry may not point to; `client` sends one
request and follows its redirects by the rules of `regproxy.policy.redirects`; `blobs` fills the store's growing file
of a blob and resumes it when the upstream breaks. What to ask for, and what to tell the client, is the stack's
business.
"""
