"""The shared room: a bucket behind the stores of several proxies, so that what one has pulled the others need not.

`tier.SharedTier` is the door for other rooms. The local store stays the first tier; what it lacks is looked for here
before a registry is asked. `bucket` speaks S3 and is the only module that imports obstore, `link` says whether the
bucket answers, `records` is what lies in it, `uploads` writes content to it in the background, `content` reads it,
`tags` and `access` share what is known of tags and of who may read what.

Below the prefix of the bucket:

    content/<algorithm>/<hex[:2]>/<hex>         the bytes, as their digest says
    about/<algorithm>/<hex[:2]>/<hex>           size, media type and a hash of each MiB; written last
    holders/<algorithm>/<hex>/<repository>      that a repository has it, and to whom it was given
    repositories/<repository>                   whom its registry let read last
    challenges/<registry>                       what a registry asks for
    tags/<tag>/<accepted>                       what a tag means, when that was checked, who checks it now

Everything but content is sealed (policy.seal); tags, repositories and registries are named by hashes.
"""
