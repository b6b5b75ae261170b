"""What the proxy is made of: holes in it (`python -m supply.audit`), and a list of it (`python -m supply.sbom`)."""
