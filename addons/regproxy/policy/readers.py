"""Who may read what is stored, in words: for operators who want to know why a client gets it or does not."""

from regproxy.policy.access import AccessRules, Ground, Known


def readers_text(known: Known, logins: int, rules: AccessRules, now_s: float) -> str:
    """Return who may read content of a repository; `known` is what is known for a client without a login.

    `logins` is how many logins the registry let read the repository, lately enough to count in an outage.
    """
    if not known.given:
        return "whom the registry lets read it: it was not fetched for this repository, so the registry is asked"
    match rules.allows(known, now_s), rules.allows_in_outage(known, now_s):
        case Ground.PUBLIC, _:
            return "everybody: the registry gave it without a login"
        case Ground.SHARED, _:
            return "whoever may use the proxy: the registry gave it to the operator's login"
        case _, Ground.PUBLIC:
            return "whom the registry lets read it, which is asked again; while it is away, everybody"
        case _, Ground.SHARED:
            return "whom the registry lets read it, which is asked again; while it is away, whoever may use the proxy"
        case _:
            return f"logins that the registry lets read it; {logins} of them also while it is away"
