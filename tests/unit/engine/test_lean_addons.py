"""Which of mitmproxy's built-in addons stay."""

from mitmproxy import options
from mitmproxy.tools.dump import DumpMaster

from regproxy.engine.lean_addons import UNUSED, remove_unused_addons

NEEDED = {"core", "errorcheck", "nextlayer", "proxyauth", "proxyserver", "scriptloader", "termlog", "tlsconfig"}


async def test_mitmproxy_has_every_addon_of_the_table_under_that_name() -> None:
    """A renamed addon would stay without a word, and cost time at every request."""
    assert set(UNUSED) <= set(DumpMaster(options.Options()).addons.lookup)


async def test_only_what_is_needed_stays() -> None:
    """With this proxy's options nothing of the table is left, and what carries requests is."""
    master = DumpMaster(options.Options())
    master.options.update(flow_detail=0, onboarding=False, block_global=False)

    remove_unused_addons(master.addons, master.options)

    left = set(master.addons.lookup)
    assert left >= NEEDED
    assert not left & set(UNUSED)


async def test_an_addon_that_an_option_turns_on_stays() -> None:
    """`mitmdump -w` and the like keep working."""
    master = DumpMaster(options.Options())
    master.options.update(modify_headers=["/~q/x/y"], onboarding=False)

    remove_unused_addons(master.addons, master.options)

    assert "modifyheaders" in master.addons.lookup
    assert "modifybody" not in master.addons.lookup
