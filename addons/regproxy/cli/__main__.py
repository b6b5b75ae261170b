"""`python -m regproxy.cli`."""

from regproxy.cli.app import main

main()
