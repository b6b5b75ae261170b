"""What the proxy decides, as functions of values.

Which hosts are intercepted, which addresses may be reached, how long a tag stays fresh, whose credentials go where,
which redirects are followed, and what is evicted. Every function takes all it needs as arguments, the current time
(`now_s`) included, and returns the verdict; the rooms that do I/O carry it out.

This room imports `regproxy.oci` and nothing else of ours.
"""
